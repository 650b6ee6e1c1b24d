"""An ONNX file with its weights as 8-bit integers: what teacher and student are quantized with.

Weights of layers have 7 bits, -64 to 64, stored as int8. Where a processor has no dot product of bytes (VNNI), ONNX Runtime
adds pairs of products of an unsigned and a signed byte in 16 bits, and cuts off what is more than 32767 (VPMADDUBSW):
2 x 255 x 127 would be, 2 x 255 x 64 is not. So a file answers alike on every processor. Tables are looked up, not multiplied:
they keep 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

Operator = Literal["Gather", "Gemm", "MatMul", "Conv"]
"""What can be quantized: Gather is an embedding table, Gemm, MatMul and Conv are layers."""


@contextmanager
def _quiet() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns of a pre-processing that our graphs do not need: the exporter folded them
    try:
        yield
    finally:
        root.setLevel(level)


def write_int8(parent: Path, path: Path, operators: Sequence[str], per_channel: bool) -> None:
    """Write the quantized twin of the ONNX file ``parent`` to ``path``.

    Dynamic quantization: weights are stored as int8 with one scale (or one an output, ``per_channel``), activations are
    scaled while the model runs, so no messages are needed to calibrate it.
    """
    with _quiet():
        quantize_dynamic(
            parent,
            path,
            op_types_to_quantize=list(operators),
            per_channel=per_channel,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Iterable[npt.NDArray[np.int64]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, npt.NDArray[np.int64]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"rows": batch}


def write_static_int8(
    parent: Path, path: Path, batches: Iterable[npt.NDArray[np.int64]], operators: Sequence[str], per_channel: bool
) -> None:
    """Write the quantized twin of the ONNX file ``parent``, whose one input is ``rows int64[texts, length]``, to ``path``.

    Static quantization: the ranges of activations are those that ``batches`` of that input show, at least one; so a text's
    answer does not hang on the others in its batch, as it does where scales are found while the model runs.
    """
    graph = onnx.load(parent).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    exact: dict[str, Any] = {
        "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],  # no grid of 256 logits
        "TensorQuantOverrides": {
            weights.name: [{"reduce_range": False}] for weights in graph.initializer if weights.name in looked_up
        },
    }
    with _quiet():
        quantize_static(
            parent,
            path,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            per_channel=per_channel,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options=exact,
        )
