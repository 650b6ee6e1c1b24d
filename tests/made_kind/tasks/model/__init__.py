"""Sequence classification, its model part: counts, and the mean of embeddings (``tasks.kinds.ModelPart``)."""

# ruff: noqa: I001 - its own packages are not where it imports them from, so ruff takes them for somebody else's

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from sklearn.preprocessing import FunctionTransformer
from torch import Tensor, nn

from service.kinds.sequence_classification.packing import NUMBERS, padded
from tasks.files import read_json, write_json
from tasks.model import settings
from tasks.model.settings import Baseline
from tasks.onnx_file import write_onnx

__all__ = ["Baseline", "Train", "load_teacher", "new_teacher", "vectorizer"]
KIND = "sequence_classification"


class Train(settings.Train):
    width: int
    """Of an embedding."""
    hidden: int


class Network(nn.Module):
    """Logits of rows of its table: ``int64[n, longest]``, 0 behind the end -> ``float[n, labels]``."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.plan = {"width": width, "hidden": hidden, "labels": labels}
        self.embedding = nn.Embedding(NUMBERS + 1, width, padding_idx=0)
        self.inner = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, labels)

    def forward(self, rows: Tensor) -> Tensor:
        mean = self.embedding(rows).sum(1) / (rows > 0).sum(1, keepdim=True)
        logits: Tensor = self.head(torch.relu(self.inner(mean)))
        return logits


class SequenceTeacher:
    """``tasks.kinds.Teacher``; inputs are padded batch by batch."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def parameter_groups(self, settings: Train) -> list[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def encode(self, inputs: Sequence[bytes]) -> list[bytes]:
        return list(inputs)

    def epoch(
        self, encoded: Sequence[bytes], batch_size: int, seed: int, number: int, start: int
    ) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
        order = np.random.default_rng([seed, number]).permutation(len(encoded)).tolist()
        for first in range(start * batch_size, len(order), batch_size):
            rows = order[first : first + batch_size]
            yield rows, (torch.from_numpy(padded([encoded[row] for row in rows])),)

    def predict(
        self, encoded: Sequence[bytes], device: Any = None, bfloat16: bool = False, desc: str | None = None
    ) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self.network.eval()(torch.from_numpy(padded(encoded))))

    def save(self, folder: Path) -> None:
        save_file(self.network.state_dict(), folder / "network.safetensors")
        write_json(folder / "variant.json", {"kind": KIND, "format": "teacher", "network": self.network.plan})

    def export(self, folder: Path, opset: int) -> None:
        """Write ``model.onnx`` and ``variant.json``."""
        shapes, example = ({0: torch.export.Dim("n"), 1: torch.export.Dim("longest")},), torch.ones((2, 8), dtype=torch.long)
        write_onnx(self.network, {"rows": example}, ["logits"], shapes, folder / "model.onnx", opset)
        count = sum(parameter.numel() for parameter in self.network.parameters())
        write_json(folder / "variant.json", {"kind": KIND, "format": "onnx", "parameters": count})


def new_teacher(settings: Train, labels: int, schema: Mapping[str, Any]) -> SequenceTeacher:
    return SequenceTeacher(Network(settings.width, settings.hidden, labels))


def load_teacher(folder: Path) -> SequenceTeacher:
    network = Network(**read_json(folder / "variant.json")["network"])
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return SequenceTeacher(network.eval())


def counts(inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """How often each number occurs, ``float32[n, NUMBERS + 1]``."""
    return np.array([np.bincount(row, minlength=NUMBERS + 1) for row in padded(inputs)], dtype=np.float32)


def vectorizer(settings: Baseline, schema: Mapping[str, Any]) -> FunctionTransformer:
    return FunctionTransformer(counts)


def quick_features(inputs: Sequence[bytes], min_documents: int) -> npt.NDArray[np.float32]:
    table = counts(inputs)
    return table[:, (table > 0).sum(axis=0) >= min_documents]
