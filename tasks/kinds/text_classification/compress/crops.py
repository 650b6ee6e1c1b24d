"""Crops of training texts, which the teacher labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.kinds.text_classification.compress.settings import Crops

CROP_WORDS = 20
"""A crop of fewer words is too short to score."""


def crops(texts: Sequence[str], settings: Crops, seed: int) -> list[str]:
    """Random runs of words of ``texts``, of lengths and positions decided by ``seed``; short texts give none."""
    rng = np.random.default_rng([seed, 2])
    pieces = []
    for text in texts:
        words = text.split(" ")
        for _ in range(settings.count):
            length = int(len(words) * rng.uniform(*settings.shares))
            start = int(rng.integers(len(words) - length + 1))
            if length >= CROP_WORDS:
                pieces.append(" ".join(words[start : start + length]))
    return pieces
