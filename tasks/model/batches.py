"""The teacher's training data and the order of its batches, determined by the seed and the number of the epoch.

An epoch can be rebuilt from these two, so a run that was killed in the middle of one can resume there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FIRST_WINDOW = 0.4
"""Probability that an epoch takes a text's first window; otherwise it draws one, which may be the first too."""


@dataclass(frozen=True)
class Data:
    """Tokenized texts, split into windows, of train and valid, with their labels and weights."""

    train: list[list[list[int]]]
    train_labels: npt.NDArray[np.int64]
    train_weights: npt.NDArray[np.float32]
    """Weight of each message in the loss; their mean is 1."""
    valid: list[list[list[int]]]
    valid_labels: npt.NDArray[np.int64]
    valid_weights: npt.NDArray[np.float64]
    padding: int


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows of one epoch in batches of similar lengths; the order depends on ``seed`` and ``epoch`` alone."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    bucket_size = batch_size * 8  # long enough to sort, short enough that batches still mix
    for bucket_start in range(0, len(order), bucket_size):
        rows = sorted(order[bucket_start : bucket_start + bucket_size], key=lambda row: lengths[row])
        batches += [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return [[int(row) for row in batches[number]] for number in rng.permutation(len(batches))]


def epoch_windows(windows: Sequence[Sequence[list[int]]], seed: int, epoch: int) -> list[list[int]]:
    """The window of each text for this epoch: often the first, which is the most informative, else a random one."""
    rng = np.random.default_rng([seed, epoch, 1])
    takes_first = rng.random(len(windows)) < FIRST_WINDOW
    return [
        text_windows[0] if is_first else text_windows[int(rng.integers(len(text_windows)))]
        for text_windows, is_first in zip(windows, takes_first, strict=True)
    ]


def schedule(steps: int, warmup_share: float) -> Any:
    """Learning-rate factor by step: linear from 0 up to 1, then linear down to 0."""
    warmup = max(1, round(steps * warmup_share))
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
