"""A small convolutional student in training (``tasks.compress.student.Student``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.kinds.image_classification.images import Pixels, Shape
from tasks.files import write_json
from tasks.kinds.image_classification.compress.network import Convolutional
from tasks.kinds.image_classification.model.export import write_images_onnx
from tasks.kinds.image_classification.model.learning import KIND
from tasks.kinds.image_classification.model.network import Once, channels_last, scaled

BATCH = 256
"""Images that are scored at once."""


class ImageStudent:
    """A convolutional network with the shape of its images."""

    def __init__(self, network: Convolutional, shape: Shape, mirror: bool) -> None:
        self.network = channels_last(network)
        self.shape, self.mirror = shape, mirror

    def encode(self, inputs: Sequence[bytes]) -> list[Pixels]:
        return [self.shape.array(pixels) for pixels in inputs]

    def forward(self, encoded: Sequence[Pixels]) -> Tensor:
        """Logits of the images; in training about half of them are mirrored."""
        pixels = torch.from_numpy(np.stack(encoded))
        if self.mirror and self.network.training:
            mirrored = torch.rand(len(pixels)) < 0.5
            pixels[mirrored] = pixels[mirrored].flip(2)
        logits: Tensor = self.network(scaled(pixels, self.shape))
        return logits

    def outputs(self, encoded: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        self.network.eval()
        with torch.inference_mode():
            parts = [self.forward(encoded[start : start + BATCH]).numpy() for start in range(0, len(encoded), BATCH)]
        return np.concatenate(parts)

    def save(self, folder: Path, opset: int) -> None:
        """Write ``model.onnx`` and ``variant.json``."""
        write_images_onnx(Once(self.network), self.shape, folder / "model.onnx", opset)
        count = sum(parameter.numel() for parameter in self.network.parameters())
        description = {"kind": KIND, "format": "onnx", "parameters": count, "image": asdict(self.shape)}
        write_json(folder / "variant.json", description | {"widths": self.network.widths})
