"""An ONNX file with its weights as 8-bit integers: what teacher and student are quantized with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from onnxruntime.quantization import QuantType, quantize_dynamic

Operator = Literal["Gather", "Gemm", "MatMul"]
"""What can be quantized: Gather is an embedding table, Gemm and MatMul are layers."""


def write_int8(parent: Path, path: Path, operators: Sequence[str], per_channel: bool) -> None:
    """Write the quantized twin of the ONNX file ``parent`` to ``path``.

    Dynamic quantization: weights are stored as int8 with one scale (or one an output, ``per_channel``), activations are
    scaled while the model runs, so no messages are needed to calibrate it.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns of a pre-processing that our graphs do not need: the exporter folded them
    try:
        quantize_dynamic(
            parent, path, op_types_to_quantize=list(operators), per_channel=per_channel, weight_type=QuantType.QInt8
        )
    finally:
        root.setLevel(level)
