"""Inference of an image model with ONNX Runtime: bytes of pixels in, logits out. The file itself scales the pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.kinds.image_classification.images import Shape
from service.session import session

BATCH = 64
"""Images per call of the model: more only need more memory."""


class Network:
    """A model loaded from a folder with ``model.onnx`` and ``variant.json``.

    The file has one input ``images``, ``uint8[n, height, width, channels]``, and the outputs ``logits`` and ``features``.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        settings = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        if settings.get("format") != "onnx":
            raise ValueError(f"{folder}/variant.json: format {settings.get('format')!r} is not onnx")
        shape = Shape.of(settings["image"])
        self.parameters = int(settings["parameters"])
        self._session = session(folder / "model.onnx", threads)
        expected = self._session.get_inputs()[0].shape[1:]
        if expected != list(shape.dimensions):
            raise ValueError(f"{folder}/model.onnx reads images of {expected}, variant.json says {list(shape.dimensions)}")
        self._dimensions = shape.dimensions

    def logits(self, inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Logits ``float32[n, labels]`` of at least one image, in order."""
        return self._run(["logits"], inputs)[0]

    def outputs(self, inputs: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, pooled features ``float32[n, dimensions]``) of at least one image."""
        logits, features = self._run(["logits", "features"], inputs)
        return logits, features

    def _run(self, names: list[str], inputs: Sequence[bytes]) -> list[npt.NDArray[np.float32]]:
        parts = []
        for start in range(0, len(inputs), BATCH):
            pixels = np.frombuffer(b"".join(inputs[start : start + BATCH]), dtype=np.uint8).reshape(-1, *self._dimensions)
            parts.append(self._session.run(names, {"images": pixels}))
        return parts[0] if len(parts) == 1 else [np.concatenate(batches) for batches in zip(*parts, strict=True)]
