"""Stage export: the teacher in ONNX, so that it can be served without torch, and a copy of it in int8.

The first step of the compression path: nothing is lost yet, and parity with the torch teacher shows it. The int8 copy is not
a step of that path but a baseline for the student: integer weights are the standard way to a smaller model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tasks.compress.distillation import teacher_logits
from tasks.compress.int8 import Operator, write_int8
from tasks.compress.parity import Parity, ParityLimits, ParityRows, ScoreLimits, broken, compare, enforce
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.kinds import Teacher, model_part
from tasks.model.device import CPU
from tasks.model.variants import load_variant
from tasks.stage import Paths, Settings, run
from tasks.tracking import track


class Int8(Settings):
    operators: list[Operator]
    per_channel: bool
    """One scale per output channel of a layer, in place of one per tensor."""
    parity: ParityLimits
    """The int8 teacher against the teacher's own logits. It is reported and stops nothing: a teacher may not survive int8."""


class Export(Settings):
    opset: int
    """Version of the ONNX operator set."""
    parity_inputs: int
    """How many inputs of valid are scored by both torch and ONNX Runtime."""
    parity: ScoreLimits
    int8: Int8


def quantize_teacher(exported: Path, folder: Path, operators: Sequence[Operator], per_channel: bool) -> None:
    """Write an int8 copy of the exported teacher into the empty ``folder``."""
    for path in exported.iterdir():
        if path.name != "model.onnx":
            shutil.copyfile(path, folder / path.name)
    write_int8(exported / "model.onnx", folder / "model.onnx", operators, per_channel)


def torch_parity(teacher: Teacher, exported: Path, inputs: Sequence[Any]) -> Parity:
    """The exported teacher against torch, both in float32, on ``inputs``."""
    expected = teacher.predict(teacher.encode(inputs), CPU, bfloat16=False)
    return compare(expected, load_variant(exported, torch.get_num_threads()).logits(inputs))


def export(settings: Export, paths: Paths) -> None:
    """Export the teacher to ONNX and check it against torch on inputs of valid; quantize it and report what that cost."""
    rows = pd.read_parquet(paths.prepared, columns=["id", "split", "source", "input", "label_id", "weight"])
    valid, schema = rows[rows.split == "valid"], read_json(paths.schema)
    teacher = model_part(schema["kind"]).load_teacher(paths.model("teacher"))
    parity_rows = ParityRows.of(valid, schema, settings.int8.parity.slice_rows)
    with track("export", settings, paths) as tracker:
        with atomic_write(paths.model("teacher-onnx")) as temporary:
            temporary.mkdir()
            teacher.export(temporary, settings.opset)
            parity = torch_parity(teacher, temporary, list(valid.input[: settings.parity_inputs]))
            figures: dict[str, Any] = {"parity": enforce(parity, settings.parity, "export.parity")}
        with atomic_write(paths.model("teacher-int8")) as temporary:
            temporary.mkdir()
            quantize_teacher(paths.model("teacher-onnx"), temporary, settings.int8.operators, settings.int8.per_channel)
            int8_logits = load_variant(temporary, torch.get_num_threads()).logits(list(valid.input))
            int8_parity = compare(teacher_logits(paths, list(valid.id)), int8_logits, parity_rows)
        figures["bytes"] = folder_bytes(paths.model("teacher-onnx"))
        over = broken(int8_parity, settings.int8.parity, "export.int8.parity")
        figures["int8"] = {"parity": int8_parity.figures(), "over": over, "bytes": folder_bytes(paths.model("teacher-int8"))}
        write_json(paths.report("export.json"), figures)
        tracker.metrics({f"int8_{name}": value for name, value in int8_parity.figures().items()})
        tracker.metrics(figures["parity"])
    print(f"largest difference {parity.largest:.2g}, {figures['bytes']:,} bytes; int8 {figures['int8']['bytes']:,} bytes")
    for line in over:
        print(f"int8 is not the teacher: {line}")


if __name__ == "__main__":
    run(export, Export)
