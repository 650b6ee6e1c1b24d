"""Stage quantize: the student's weights in fewer bits, above all its embedding table.

In a model this small the aim is size; the student must still agree with its parent. ``dynamic`` and ``static`` write 8-bit
integers (tasks/compress/int8.py), ``codebook`` writes each row of the table as a short code for one of few vectors
(tasks/compress/codebook.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from service.scorer import BATCH, STUDENTS, Student, load_student
from service.tokenizer import pad
from tasks.compress.codebook import Codebook, write_codebook
from tasks.compress.int8 import Operator, write_int8, write_static_int8
from tasks.compress.parity import ParityLimits, ParityRows, compare, reported
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import track


class Quantize(Settings):
    parent: str
    """The folder below models/ that is quantized: a student, as the previous step wrote it."""
    method: Literal["auto", "dynamic", "static", "codebook"]
    """``auto``: codebook for a student with a hashed embedding table, dynamic for a transformer."""
    operators: list[Operator]
    """For dynamic and static: what is quantized. Codebook ignores it."""
    per_channel: bool
    """For dynamic and static: one scale per output channel of a layer, in place of one per tensor."""
    codebook: Codebook
    calibration_messages: int = Field(ge=1)
    """Messages of train on which static measures the ranges of activations, and codebook counts the rows."""
    seed: int
    """Of the sample of these messages, and of k-means."""
    parity: ParityLimits


def quantize_student(parent: Path, folder: Path, settings: Quantize, texts: Sequence[str]) -> None:
    """Write a quantized copy of the student in ``parent`` into the empty ``folder``, calibrated on ``texts``.

    Raises StageError where the method needs texts and there are none, and for a table that codebook cannot encode.
    """
    for path in parent.iterdir():
        if path.name != "model.onnx":
            shutil.copyfile(path, folder / path.name)
    model, quantized = parent / "model.onnx", folder / "model.onnx"
    hashed = read_json(parent / "variant.json")["kind"] == "student"
    if settings.method == "dynamic" or (settings.method == "auto" and not hashed):
        write_int8(model, quantized, settings.operators, settings.per_channel)
        return
    if not hashed:
        raise StageError(f"quantize.method = {settings.method!r}: models/{parent.name} is a transformer, which bears dynamic")
    if not texts:
        raise StageError(
            f"quantize.calibration_messages = {settings.calibration_messages}: train has no message;"
            " quantize.method = dynamic needs none"
        )
    tokenizer = Student(parent).tokenizer
    rows = [tokenizer.encode(text) for text in texts]
    if settings.method == "static":
        batches = (pad(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH))
        write_static_int8(model, quantized, batches, settings.operators, settings.per_channel)
    else:
        counts = np.bincount(np.concatenate(rows), minlength=tokenizer.rows)
        write_codebook(model, quantized, counts, settings.codebook, settings.seed)


def calibration(train: pd.DataFrame, settings: Quantize) -> list[str]:
    """The texts of train for calibration: all, or a random sample of the configured size."""
    count = min(settings.calibration_messages, len(train))
    return list(train.text.iloc[np.random.default_rng(settings.seed).permutation(len(train))[:count]])


def student_folder(name: str, paths: Paths) -> Path:
    """The parent's folder. Raises StageError where it does not exist or holds no student."""
    folder = paths.model(name)
    if not (folder / "variant.json").exists() or read_json(folder / "variant.json")["kind"] not in STUDENTS:
        raise StageError(f"quantize.parent = {name!r}: models/{name} holds no student")
    return folder


def quantize(settings: Quantize, paths: Paths) -> None:
    """Quantize the parent by the configured method and check that it still agrees with the parent on valid."""
    parent = student_folder(settings.parent, paths)
    rows = pd.read_parquet(paths.prepared, columns=["split", "source", "text", "label_id", "weight"])
    train, valid = (rows[rows.split == split] for split in ("train", "valid"))
    parity_rows = ParityRows.of(valid, read_json(paths.schema), settings.parity.slice_messages)
    with track("quantize", settings, paths) as tracker:
        with atomic_write(paths.model("student-quantized")) as temporary:
            temporary.mkdir()
            quantize_student(parent, temporary, settings, calibration(train, settings))
            parent_logits, quantized_logits = (load_student(folder).logits(list(valid.text)) for folder in (parent, temporary))
            parity = compare(parent_logits, quantized_logits, parity_rows)
            over = reported(parity, settings.parity, "quantize.parity")
            sizes = {"before": folder_bytes(parent), "after": folder_bytes(temporary)}
        write_json(paths.report("quantize.json"), {"parity": parity.figures(), "over": over, "bytes": sizes})
        tracker.metrics(parity.figures() | {f"bytes_{name}": float(size) for name, size in sizes.items()})
        tracker.file(paths.report("quantize.json"))
    print(f"{sizes['before']:,} -> {sizes['after']:,} bytes, largest difference {parity.largest:.4f}")


if __name__ == "__main__":
    run(quantize, Quantize)
