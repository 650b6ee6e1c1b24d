"""Stage quantize: the student's weights as 8-bit integers, embedding rows included.

In a model this small it is for size; the student must still agree with the one it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from service.scorer import Student
from tasks.compress.int8 import Operator, write_int8
from tasks.compress.parity import Asked, Limits, compare, enforce
from tasks.stage import Paths, Settings, StageError, folder_bytes, read_json, run, whole, write_json
from tasks.tracking import track


class Quantize(Settings):
    parent: str
    """The folder below models/ that is quantized: a student, as the step before left it."""
    operators: list[Operator]
    per_channel: bool
    """A scale for each output of a layer, in place of one for all."""
    parity: Limits


def quantize_student(parent: Path, folder: Path, operators: Sequence[Operator], per_channel: bool) -> None:
    """Write the quantized twin of the student in ``parent`` into the empty ``folder``."""
    for name in ("words.npz", "variant.json"):
        shutil.copyfile(parent / name, folder / name)
    write_int8(parent / "model.onnx", folder / "model.onnx", operators, per_channel)


def student_folder(name: str, paths: Paths) -> Path:
    """The folder of the parent. Raises StageError where it is none, or holds no student."""
    folder = paths.model(name)
    if not (folder / "variant.json").exists() or read_json(folder / "variant.json")["kind"] != "student":
        raise StageError(f"quantize.parent = {name!r}: models/{name} holds no student")
    return folder


def quantize(settings: Quantize, paths: Paths) -> None:
    """Quantize the parent to int8 and check that it still answers as the parent does on valid."""
    parent = student_folder(settings.parent, paths)
    rows = pd.read_parquet(paths.prepared, columns=["split", "source", "text", "label_id", "weight"])
    rows = rows[rows.split == "valid"]
    asked = Asked.of(rows, read_json(paths.schema), settings.parity.slice_messages)
    with track("quantize", settings, paths) as tracker:
        with whole(paths.model("student-quantized")) as temporary:
            temporary.mkdir()
            quantize_student(parent, temporary, settings.operators, settings.per_channel)
            before, after = (Student(folder).logits(list(rows.text)) for folder in (parent, temporary))
            parity = compare(before, after, asked)
            agreed = enforce(parity, settings.parity, "quantize.parity")
            sizes = {"before": folder_bytes(parent), "after": folder_bytes(temporary)}
        write_json(paths.report("quantize.json"), {"parity": agreed, "bytes": sizes})
        tracker.metrics(agreed | {f"bytes_{name}": float(size) for name, size in sizes.items()})
        tracker.file(paths.report("quantize.json"))
    print(f"{sizes['before']:,} -> {sizes['after']:,} bytes, largest difference {parity.largest:.4f}")


if __name__ == "__main__":
    run(quantize, Quantize)
