"""The state of a training run on disk, so that a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tasks.stage import atomic_write


@dataclass
class TrainProgress:
    """All of a run that is not a weight; with the weights it is the checkpoint."""

    epoch: int = 0
    batch: int = 0
    best: float = -math.inf
    looks_without_better: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.epoch < 0


class Checkpoint:
    """The newest state of one run, whole or absent. Another data set or another setting is another run."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.pt"

    def save(self, **state: Any) -> None:
        with atomic_write(self.path) as temporary:
            torch.save(state, temporary)

    def load(self) -> dict[str, Any] | None:
        return torch.load(self.path, weights_only=True) if self.path.exists() else None

    def remove(self) -> None:
        """Remove it, and what runs of other settings left: they hold hundreds of MB and nobody goes on with them."""
        for path in self.path.parent.glob("*.pt"):
            path.unlink()
