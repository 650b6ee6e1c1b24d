"""Quantization of a text student: 8-bit integers, or its embedding table as codewords."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.kinds.text_classification.scorer import BATCH, Student
from service.kinds.text_classification.tokenizer import pad
from tasks.compress.int8 import write_int8, write_static_int8
from tasks.files import read_json
from tasks.kinds.text_classification.compress.codebook import write_codebook
from tasks.kinds.text_classification.compress.settings import Quantize
from tasks.stage import StageError


def quantize_student(parent: Path, folder: Path, settings: Quantize, inputs: Sequence[str]) -> None:
    """Write a quantized copy of the student in ``parent`` into the empty ``folder``, calibrated on ``inputs``.

    Raises StageError where the method needs texts and there are none, and for a table that codebook cannot encode.
    """
    for path in parent.iterdir():
        if path.name != "model.onnx":
            shutil.copyfile(path, folder / path.name)
    model, quantized = parent / "model.onnx", folder / "model.onnx"
    hashed = read_json(parent / "variant.json")["format"] == "student"
    if settings.method == "dynamic" or (settings.method == "auto" and not hashed):
        write_int8(model, quantized, settings.operators, settings.per_channel)
        return
    if not hashed:
        raise StageError(f"quantize.method = {settings.method!r}: models/{parent.name} is a transformer, which bears dynamic")
    if not inputs:
        raise StageError(
            f"quantize.calibration_inputs = {settings.calibration_inputs}: train has no row;"
            " quantize.method = dynamic needs none"
        )
    tokenizer = Student(parent).tokenizer
    rows = [tokenizer.encode(text) for text in inputs]
    if settings.method == "static":
        batches = ({"rows": pad(rows[start : start + BATCH])} for start in range(0, len(rows), BATCH))
        write_static_int8(model, quantized, batches, settings.operators, settings.per_channel)
    else:
        counts = np.bincount(np.concatenate(rows), minlength=tokenizer.rows)
        write_codebook(model, quantized, counts, settings.codebook, settings.seed)
