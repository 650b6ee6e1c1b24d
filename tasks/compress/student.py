"""A student in training: its input encoding, its logits, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

BATCH = 32
"""Batch size for inference."""


class Student(Protocol):
    """A network with the input encoding that belongs to it."""

    @property
    def network(self) -> nn.Module:
        """The trainable module."""

    def encode(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Model inputs as ``forward`` and ``outputs`` take them."""

    def forward(self, encoded: Sequence[Any]) -> Tensor:
        """Differentiable logits ``float[batch, labels]`` of encoded inputs."""

    def outputs(self, encoded: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Logits ``float32[n, labels]`` of any number of encoded inputs, in evaluation mode."""

    def save(self, folder: Path, opset: int) -> None:
        """Write the student into an empty folder, as ``tasks.model.variants`` loads it."""
