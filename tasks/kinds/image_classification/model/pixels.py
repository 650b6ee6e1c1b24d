"""Features of the baseline: pixels, and histograms of oriented gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from service.kinds.image_classification.images import Shape
from tasks.kinds.image_classification.model.settings import Baseline

BINS = 9
"""Directions of a gradient that are told apart; opposite ones are one."""
CELL = 4
"""Side of the squares of pixels that have a histogram each."""
CHUNK = 2048
"""Images whose gradients are in memory at once."""


class Pixels(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Model inputs as ``float32[n, values]``, from 0 to 1; there is nothing to fit."""

    def fit(self, inputs: Sequence[bytes], labels: Any = None) -> Pixels:
        return self

    def transform(self, inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        values = np.frombuffer(b"".join(inputs), dtype=np.uint8).reshape(len(inputs), -1)
        return values.astype(np.float32) / np.float32(255)


class Gradients(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """``Pixels``, and beside them histograms of oriented gradients (Dalal and Triggs 2005): ``float32[n, values]``.

    ``shape``: (height, width, channels). A cell's histogram is divided by the length of those of the 3 x 3 cells around it.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def fit(self, inputs: Sequence[bytes], labels: Any = None) -> Gradients:
        return self

    def transform(self, inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        pixels = Pixels().transform(inputs)
        grey = pixels.reshape(-1, *self.shape).mean(axis=3)
        parts = [_histograms(grey[start : start + CHUNK]) for start in range(0, len(grey), CHUNK)]
        return np.concatenate([pixels, np.concatenate(parts)], axis=1)


def _histograms(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``float32[n, height, width]`` -> ``float32[n, cells * BINS]``."""
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, across)
    bins = np.minimum((np.arctan2(down, across) % np.pi) / np.pi * BINS, BINS - 1).astype(np.int8)
    rows, columns = (-(-side // CELL) for side in grey.shape[1:])
    room = ((0, 0), (0, rows * CELL - grey.shape[1]), (0, columns * CELL - grey.shape[2]))
    cells = np.stack(
        [
            np.pad(np.where(bins == number, strength, 0), room).reshape(len(grey), rows, CELL, columns, CELL).sum(axis=(2, 4))
            for number in range(BINS)
        ],
        axis=3,
    )
    energy = np.pad((cells**2).sum(axis=3), ((0, 0), (1, 1), (1, 1)))
    around = sum(energy[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3))
    normalised: npt.NDArray[np.float32] = (cells / np.sqrt(around + 1e-3)[..., None]).reshape(len(grey), -1).astype(np.float32)
    return normalised


def vectorizer(settings: Baseline, schema: Mapping[str, Any]) -> Pixels | Gradients:
    shape = Shape.of(schema["image"])
    return Gradients((shape.height, shape.width, shape.channels)) if settings.gradients else Pixels()


def quick_features(inputs: Sequence[bytes], min_documents: int) -> npt.NDArray[np.float32]:
    """Pixels, without those that are not zero in fewer than ``min_documents`` of the images."""
    values = Pixels().transform(inputs)
    kept: npt.NDArray[np.float32] = values[:, (values > 0).sum(axis=0) >= min_documents]
    return kept
