"""Quantization of an ONNX file to 8-bit integer weights, dynamic and static, for teacher and student.

Weights of layers use 7 bits, -64 to 64, stored as int8. Where a processor has no dot product of bytes (VNNI), ONNX Runtime
adds pairs of products of an unsigned and a signed byte in 16 bits, which saturates at 32767 (VPMADDUBSW): 2 x 255 x 127 would
exceed it, 2 x 255 x 64 does not. So a file gives the same result on every processor. Embedding tables are looked up, not
multiplied: they keep 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

Operator = Literal["Gather", "Gemm", "MatMul", "Conv"]
"""What can be quantized: Gather is an embedding table, Gemm, MatMul and Conv are layers."""


Feed = dict[str, npt.NDArray[Any]]
"""The inputs of an ONNX model, by name."""


@contextmanager
def _quiet() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it suggests a pre-processing that our graphs do not need: the exporter has folded constants
    try:
        yield
    finally:
        root.setLevel(level)


def write_int8(parent: Path, path: Path, operators: Sequence[str], per_channel: bool) -> None:
    """Write a dynamically quantized copy of the ONNX file ``parent`` to ``path``.

    Weights are stored as int8 with one scale per tensor (or per output channel, ``per_channel``). Activations are scaled at
    run time, so no calibration data is needed.
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
    def __init__(self, batches: Iterable[Feed]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Feed | None:
        return next(self._batches, None)


def write_static_int8(parent: Path, path: Path, batches: Iterable[Feed], operators: Sequence[str], per_channel: bool) -> None:
    """Write a statically quantized copy of ``parent`` to ``path``.

    The ranges of activations are measured on ``batches`` of its inputs, at least one. So the logits of an input do not depend
    on the others in its batch, as they do where scales are computed at run time.
    """
    graph = onnx.load(parent).graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    options: dict[str, Any] = {
        "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],  # logits stay float, not one of 256 levels
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
            extra_options=options,
        )
