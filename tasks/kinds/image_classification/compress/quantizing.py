"""Quantization of a student: its file with 8-bit weights, and in the static form with 8-bit activations too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from service.kinds.image_classification.images import Shape
from tasks.compress.int8 import write_int8, write_static_int8
from tasks.files import read_json
from tasks.kinds.image_classification.compress.settings import Quantize
from tasks.kinds.image_classification.model.export import strip
from tasks.stage import StageError

BATCH = 64
"""Images per call of the model that measures ranges."""


def quantize_student(parent: Path, folder: Path, settings: Quantize, inputs: Sequence[bytes]) -> None:
    """Write a quantized copy of the student in ``parent`` into the empty ``folder``. Raises StageError without images."""
    shutil.copyfile(parent / "variant.json", folder / "variant.json")
    source, target = parent / "model.onnx", folder / "model.onnx"
    if settings.method == "dynamic":
        write_int8(source, target, settings.operators, settings.per_channel)
    elif not inputs:
        raise StageError(
            f"quantize.calibration_inputs = {settings.calibration_inputs}: train has no image;"
            " quantize.method = dynamic needs none"
        )
    else:
        shape = Shape.of(read_json(parent / "variant.json")["image"])
        pixels = np.stack([shape.array(image) for image in inputs])
        batches = ({"images": pixels[start : start + BATCH]} for start in range(0, len(pixels), BATCH))
        # With Relu among them, its clipping becomes part of the convolution's own range, and no node is left of it.
        write_static_int8(source, target, batches, [*settings.operators, "Relu"], settings.per_channel)
    model = onnx.load(target)
    strip(model)
    onnx.checker.check_model(model)
    onnx.save(model, target)
