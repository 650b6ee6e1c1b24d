"""The teacher as the stages train it, score it and save it (``tasks.kinds.Teacher``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from service.kinds.image_classification.images import Shape
from tasks.files import read_json, write_json
from tasks.kinds.image_classification.model.augmentation import Pixels, augmented
from tasks.kinds.image_classification.model.export import write_images_onnx
from tasks.kinds.image_classification.model.network import Mirrored, Once, Residual, channels_last, scaled
from tasks.kinds.image_classification.model.pretrained import Pretrained, load_pretrained, rebuild
from tasks.kinds.image_classification.model.settings import Augment, Train
from tasks.stage import StageError

KIND, FORMAT = "image_classification", "teacher"
"""In ``variant.json``."""
BATCH = 256
"""Images that are scored at once."""


class ImageTeacher:
    """A network with the shape of its images, and how they are augmented."""

    def __init__(self, network: Residual | Pretrained, shape: Shape, augment: Augment) -> None:
        self.network = channels_last(network)
        self.shape, self.augment = shape, augment

    def parameter_groups(self, settings: Train) -> list[dict[str, Any]]:
        """Weights of layers decay; biases and the scales of normalisation do not."""
        weights = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        return [{"params": weights}, {"params": others, "weight_decay": 0.0}]

    def encode(self, inputs: Sequence[bytes]) -> list[Pixels]:
        return [self.shape.array(pixels) for pixels in inputs]

    def epoch(
        self, encoded: Sequence[Pixels], batch_size: int, seed: int, number: int, start: int
    ) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
        """Batches in random order, each augmented by draws of its own. Tensors: the scaled images."""
        order = np.random.default_rng([seed, number]).permutation(len(encoded))
        for batch in range(start, -(-len(order) // batch_size)):
            rows = order[batch * batch_size : (batch + 1) * batch_size].tolist()
            rng = np.random.default_rng([seed, number, batch])
            pixels = augmented(np.stack([encoded[row] for row in rows]), self.augment, self.shape.mean, rng)
            yield rows, (scaled(torch.from_numpy(pixels), self.shape),)

    def predict(
        self, encoded: Sequence[Pixels], device: torch.device, bfloat16: bool, desc: str | None = None
    ) -> npt.NDArray[np.float32]:
        module = self._served().eval()
        parts = []
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            starts = range(0, len(encoded), BATCH)
            for start in tqdm(starts, desc=desc, unit=" batches", mininterval=1, disable=desc is None):
                pixels = torch.from_numpy(np.stack(encoded[start : start + BATCH]))
                parts.append(module(scaled(pixels.to(device), self.shape))[0].float().cpu().numpy())
        return np.concatenate(parts)

    def _served(self) -> Mirrored | Once:
        return Mirrored(self.network) if self.augment.mirror else Once(self.network)

    def save(self, folder: Path) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}, folder / "model.safetensors"
        )
        write_json(folder / "variant.json", {"format": FORMAT, **self._description()})

    def export(self, folder: Path, opset: int) -> None:
        write_images_onnx(self._served(), self.shape, folder / "model.onnx", opset)
        write_json(folder / "variant.json", {"format": "onnx", **self._description()})

    def _description(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "image": asdict(self.shape),
            "network": self.network.plan,
            "augment": self.augment.model_dump(),
        }


def new_teacher(settings: Train, labels: int, schema: Mapping[str, Any]) -> ImageTeacher:
    """A network to be trained; torch was seeded. Raises StageError."""
    shape = Shape.of(schema["image"])
    if settings.model is not None:
        return ImageTeacher(load_pretrained(settings.model, shape, labels, settings.dropout), shape, settings.augment)
    if len(settings.widths) != len(settings.blocks):
        raise StageError(f"train.blocks = {settings.blocks}: one number for each of train.widths = {settings.widths}")
    network = Residual(shape.channels, labels, settings.widths, settings.blocks, settings.stride, settings.dropout)
    return ImageTeacher(network, shape, settings.augment)


def load_teacher(folder: Path) -> ImageTeacher:
    """The teacher as saved, in evaluation mode."""
    found = read_json(folder / "variant.json")
    plan = found["network"]
    network = rebuild(**plan) if "pretrained" in plan else Residual(**plan, dropout=0.0)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    network.eval()
    return ImageTeacher(network, Shape.of(found["image"]), Augment.model_validate(found["augment"]))
