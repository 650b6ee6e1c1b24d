"""From logits to a label: serving, evaluation and the choice of the threshold share these functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def positive_index(settings: Mapping[str, Any]) -> int | None:
    """The index of the label ``positive`` among ``labels``; None where no label is positive."""
    return None if settings["positive"] is None else int(settings["labels"].index(settings["positive"]))


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities ``float64[n, labels]`` of logits divided by ``temperature`` (Guo et al. 2017)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    probabilities: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def decide(probabilities: Floats, positive: int | None, threshold: float) -> npt.NDArray[np.int64]:
    """The predicted label: the positive one from ``threshold`` on; without a positive label the most probable."""
    if positive is None:
        most_probable: npt.NDArray[np.int64] = probabilities.argmax(axis=1)
        return most_probable
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)
