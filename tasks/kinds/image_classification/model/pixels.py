"""Pixels as features of the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from tasks.kinds.image_classification.model.settings import Baseline


class Pixels(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Model inputs as ``float32[n, values]``, from 0 to 1; there is nothing to fit."""

    def fit(self, inputs: Sequence[bytes], labels: Any = None) -> Pixels:
        return self

    def transform(self, inputs: Sequence[bytes]) -> npt.NDArray[np.float32]:
        values = np.frombuffer(b"".join(inputs), dtype=np.uint8).reshape(len(inputs), -1)
        return values.astype(np.float32) / np.float32(255)


def vectorizer(settings: Baseline) -> Pixels:
    return Pixels()


def quick_features(inputs: Sequence[bytes], min_documents: int) -> npt.NDArray[np.float32]:
    """Pixels, without those that are not zero in fewer than ``min_documents`` of the images."""
    values = Pixels().transform(inputs)
    kept: npt.NDArray[np.float32] = values[:, (values > 0).sum(axis=0) >= min_documents]
    return kept
