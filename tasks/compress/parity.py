"""Does a compressed model still say what its parent says? Every step on the compression path must show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from service.decision import softmax
from tasks.stage import Settings, StageError


class Limits(Settings):
    """How far a model may be from its parent on the valid split; scores are probabilities."""

    largest: float
    """Largest difference of any score."""
    mean: float
    """Mean absolute difference of scores."""
    flips: float
    """Share of messages whose likeliest label differs."""


@dataclass(frozen=True)
class Parity:
    """How far a model is from its parent; figures as in ``Limits``."""

    largest: float
    mean: float
    flips: float


def compare(parent: npt.NDArray[np.float32], child: npt.NDArray[np.float32]) -> Parity:
    """Parity of two sets of logits ``[n, labels]`` over the same messages.

    Raises StageError where the shapes differ or a logit is not a number: that is no small disagreement.
    """
    if parent.shape != child.shape or not len(parent):
        raise StageError(f"logits of {parent.shape} and {child.shape} cannot be compared")
    if not (np.isfinite(parent).all() and np.isfinite(child).all()):
        raise StageError("a logit is not a finite number")
    gap = np.abs(softmax(parent) - softmax(child))
    flips = float((parent.argmax(axis=1) != child.argmax(axis=1)).mean())
    return Parity(float(gap.max()), float(gap.mean()), flips)


def enforce(parity: Parity, limits: Limits, where: str) -> dict[str, float]:
    """The figures, where all are within ``limits``. Raises StageError that names each that is not."""
    over = [
        f"{name} = {value:.4g}, at most {getattr(limits, name):g} (params.yaml: {where}.{name})"
        for name, value in asdict(parity).items()
        if not value <= getattr(limits, name)
    ]
    if over:
        raise StageError(f"the model does not agree with its parent: {'; '.join(over)}")
    return asdict(parity)
