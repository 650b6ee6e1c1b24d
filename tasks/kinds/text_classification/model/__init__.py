"""Text classification, its model part: TF-IDF, and a pre-trained encoder (``tasks.kinds.ModelPart``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from tasks.kinds.text_classification.model.learning import TransformerTeacher, load_teacher, new_teacher
from tasks.kinds.text_classification.model.settings import Baseline, Train

__all__ = ["Baseline", "Train", "TransformerTeacher", "load_teacher", "new_teacher", "quick_features", "vectorizer"]


def vectorizer(settings: Baseline, schema: Mapping[str, Any]) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=settings.analyzer,
        ngram_range=settings.ngrams,
        min_df=settings.min_documents,
        max_features=settings.features,
        sublinear_tf=True,
        dtype=np.float32,
    )


def quick_features(inputs: Sequence[str], min_documents: int) -> Any:
    """Words and pairs of words, weighted by TF-IDF."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=min_documents, sublinear_tf=True, dtype=np.float32)
    return vectors.fit_transform(inputs)
