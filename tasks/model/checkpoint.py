"""Checkpoints of a training run on disk, from which a killed run resumes."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tasks.files import atomic_write


@dataclass
class TrainProgress:
    """The state of a run apart from weights, optimizer and random state; it is saved with them in the checkpoint."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    looks_without_better: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.epoch < 0


class Checkpoint:
    """The latest state of one run, complete or absent. Other data or other settings make another run."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pt"

    def save(self, **state: Any) -> None:
        with atomic_write(self.path) as temporary:
            torch.save(state, temporary)

    def load(self) -> dict[str, Any] | None:
        return torch.load(self.path, weights_only=True) if self.path.exists() else None

    def remove(self) -> None:
        """Remove it, and those of other settings: they take hundreds of MB and nobody will resume them."""
        for path in self.path.parent.glob("*.pt"):
            path.unlink()
