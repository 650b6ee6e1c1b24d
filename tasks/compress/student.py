"""A student in training: its input encoding, its logits, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.tokenizer import Tokenizer, pad
from tasks.compress.networks import Convolution, Network, save_student

BATCH = 32
"""Batch size for inference."""


class Student(Protocol):
    """A network with the input encoding that belongs to it."""

    @property
    def network(self) -> nn.Module:
        """The trainable module."""

    def encode(self, texts: Sequence[str]) -> Sequence[Any]:
        """Normalised texts as the network's inputs."""

    def forward(self, encoded: Sequence[Any]) -> Tensor:
        """Differentiable logits ``float[batch, labels]`` of encoded texts."""

    def outputs(self, encoded: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Logits ``float32[n, labels]`` of any number of encoded texts, in evaluation mode."""

    def save(self, folder: Path, opset: int) -> None:
        """Write the student into an empty folder, as ``tasks.model.variants`` loads it."""


class Hashed:
    """A student whose inputs are rows of a hashed embedding table."""

    def __init__(self, network: Network | Convolution, tokenizer: Tokenizer) -> None:
        self.network: Network | Convolution = network
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Sequence[npt.NDArray[np.int64]]:
        return [self.tokenizer.encode(text) for text in texts]

    def forward(self, encoded: Sequence[npt.NDArray[np.int64]]) -> Tensor:
        logits: Tensor = self.network(torch.from_numpy(pad(encoded)))
        return logits

    def outputs(self, encoded: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        self.network.eval()
        with torch.inference_mode():
            parts = [self.forward(encoded[start : start + BATCH]).numpy() for start in range(0, len(encoded), BATCH)]
        return np.concatenate(parts)

    def save(self, folder: Path, opset: int) -> None:
        save_student(self.network, self.tokenizer, folder, opset)
