"""Labels that contradict everything else that is known: confident learning, for the labels that reviewers gave.

Each labelled row is scored by a linear model that never saw it, nor a near-duplicate of it. Where that model
gives the label a reviewer chose a small probability, the label is doubted (Northcutt, Jiang, Chuang: Confident
Learning, JAIR 2021). A share of doubts above the natural one means that labels were flipped, by mistake or on purpose.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from tasks.kinds import model_part
from tasks.stage import Settings


class Labels(Settings):
    """How doubted labels are found, and how many of them may be."""

    probability: float
    """A label with an out-of-fold probability below it is doubted."""
    maximum: float
    """Largest share of doubted labels among those of the reviewers; a single doubt is always allowed."""
    folds: int
    min_documents: int
    """Features that fewer rows have are left out."""
    C: float
    """Inverse strength of the regularisation."""
    seed: int


def given_probabilities(
    rows: pd.DataFrame, asked: npt.NDArray[np.bool_], settings: Labels, kind: str
) -> npt.NDArray[np.float64]:
    """Out-of-fold probability of the given label of each of the ``asked`` rows, in their order.

    ``rows`` has input, group and label_id; folds go by group.
    """
    # They know no label, so they may see every fold.
    features = model_part(kind).quick_features(list(rows.input), settings.min_documents)
    labels = rows.label_id.to_numpy()
    _, member = np.unique(rows.group.to_numpy(dtype=str), return_inverse=True)
    fold = np.random.default_rng(settings.seed).permutation(member.max() + 1)[member] % settings.folds
    found = np.zeros(len(rows))
    for number in range(settings.folds):
        out = np.flatnonzero((fold == number) & asked)
        if not len(out):
            continue
        model = LogisticRegression(C=settings.C, max_iter=1000).fit(features[fold != number], labels[fold != number])
        column = {label: place for place, label in enumerate(model.classes_)}
        given = model.predict_proba(features[out])
        found[out] = [row[column[label]] if label in column else 0.0 for row, label in zip(given, labels[out], strict=True)]
    return found[asked]
