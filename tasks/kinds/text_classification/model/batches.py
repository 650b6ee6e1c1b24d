"""The order of the teacher's batches, determined by the seed and the number of the epoch.

An epoch can be rebuilt from these two, so a run that was killed in the middle of one can resume there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIRST_WINDOW = 0.4
"""Probability that an epoch takes a text's first window; otherwise it draws one, which may be the first too."""


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
