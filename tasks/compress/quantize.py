"""Stage quantize: the student's weights as 8-bit integers, embedding rows included.

Dynamic quantization of ONNX Runtime: weights are stored as int8 with one scale, activations are scaled while the
model runs. In a model this small it is for size; the student must still agree with the one it was made from.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Literal

import pandas as pd
from onnxruntime.quantization import QuantType, quantize_dynamic

from service.scorer import Student
from tasks.compress.parity import Limits, compare, enforce
from tasks.stage import Paths, Settings, folder_bytes, run, whole, write_json
from tasks.tracking import track


class Quantize(Settings):
    operators: list[Literal["Gather", "Gemm", "MatMul"]]
    """What is quantized: Gather is the embedding table, Gemm and MatMul the layers."""
    per_channel: bool
    """A scale for each output of a layer, in place of one for all."""
    parity: Limits


def quantize_student(parent: Path, folder: Path, operators: list[str], per_channel: bool) -> None:
    """Write the quantized twin of the student in ``parent`` into the empty ``folder``."""
    for name in ("words.npz", "variant.json"):
        shutil.copyfile(parent / name, folder / name)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns of a pre-processing that a graph of ten nodes does not need
    try:
        quantize_dynamic(
            parent / "model.onnx",
            folder / "model.onnx",
            op_types_to_quantize=operators,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)


def quantize(settings: Quantize, paths: Paths) -> None:
    """Quantize the student to int8 and check it against its parent on valid."""
    rows = pd.read_parquet(paths.prepared, columns=["split", "text"])
    texts = list(rows.text[rows.split == "valid"])
    parent = paths.model("student")
    with track("quantize", settings, paths) as tracker:
        with whole(paths.model("student-int8")) as temporary:
            temporary.mkdir()
            quantize_student(parent, temporary, list(settings.operators), settings.per_channel)
            parity = compare(Student(parent).logits(texts), Student(temporary).logits(texts))
            agreed = enforce(parity, settings.parity, "quantize.parity")
            sizes = {"before": folder_bytes(parent), "after": folder_bytes(temporary)}
        write_json(paths.report("quantize.json"), {"parity": agreed, "bytes": sizes})
        tracker.metrics(agreed | {f"bytes_{name}": float(size) for name, size in sizes.items()})
        tracker.file(paths.report("quantize.json"))
    print(f"{sizes['before']:,} -> {sizes['after']:,} bytes, largest difference {parity.largest:.4f}")


if __name__ == "__main__":
    run(quantize, Quantize)
