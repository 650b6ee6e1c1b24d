"""What the teacher learns from, and in which order: all of it decided by a seed and the number of the epoch.

An epoch is made anew from these two, so a run that was killed in the middle of one can go on in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST_WINDOW = 0.4
"""How often an epoch takes a text's first window without a draw; the draw may take it too."""


@dataclass(frozen=True)
class Data:
    """Tokenized texts, as windows, of the two splits that training may see, with their labels and weights."""

    train: list[list[list[int]]]
    train_labels: npt.NDArray[np.int64]
    train_weights: npt.NDArray[np.float32]
    """What each message counts in the loss; their mean is 1."""
    valid: list[list[list[int]]]
    valid_labels: npt.NDArray[np.int64]
    valid_weights: npt.NDArray[np.float64]
    padding: int


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows of one epoch in batches of like lengths, in an order that ``seed`` and ``epoch`` alone decide."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    bucket = batch_size * 8  # long enough to sort, short enough that batches still mix
    for start in range(0, len(order), bucket):
        rows = sorted(order[start : start + bucket], key=lambda row: lengths[row])
        batches += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [[int(row) for row in batches[number]] for number in rng.permutation(len(batches))]


def epoch_windows(windows: Sequence[Sequence[list[int]]], seed: int, epoch: int) -> list[list[int]]:
    """The window of each text that this epoch sees: often the first, which says most, else any."""
    rng = np.random.default_rng([seed, epoch, 1])
    first = rng.random(len(windows)) < FIRST_WINDOW
    return [own[0] if begin else own[int(rng.integers(len(own)))] for own, begin in zip(windows, first, strict=True)]


def schedule(steps: int, warmup_share: float) -> Any:
    """Learning-rate factor by step: linear from 0 up to 1, then linear down to 0."""
    warmup = max(1, round(steps * warmup_share))
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
