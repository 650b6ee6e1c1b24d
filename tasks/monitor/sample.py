"""Samples of inputs as arrays: from journal records, from a release's reference, or merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sample:
    """``n`` inputs answered by one release. Compared by identity."""

    descriptors: Floats
    """``[n, names]``, columns as in the kind's ``descriptors``."""
    probabilities: Floats
    """``[n, labels]``, calibrated."""
    features: Floats
    """``[n, d]``; d is 0 where the model has none."""
    answered: Integers
    """``[n]``, index of the answered label."""

    def __len__(self) -> int:
        return len(self.answered)

    def take(self, rows: npt.NDArray[Any]) -> Sample:
        return Sample(self.descriptors[rows], self.probabilities[rows], self.features[rows], self.answered[rows])


@dataclass(frozen=True)
class Labelled:
    """Confirmed labels and the labels answered."""

    labels: Integers
    """``[n]``; -1 for a label that the release does not know."""
    answered: Integers

    def __len__(self) -> int:
        return len(self.labels)


def merge(samples: Sequence[Sample]) -> Sample:
    return Sample(
        np.concatenate([sample.descriptors for sample in samples]),
        np.concatenate([sample.probabilities for sample in samples]),
        np.concatenate([sample.features for sample in samples]),
        np.concatenate([sample.answered for sample in samples]),
    )


def merge_labelled(parts: Sequence[Labelled]) -> Labelled:
    return Labelled(np.concatenate([p.labels for p in parts]), np.concatenate([p.answered for p in parts]))


def sample_from_answers(records: Sequence[Mapping[str, Any]], names: Sequence[str], labels: Sequence[str]) -> Sample:
    """The answers among ``records``, all of one release, in their order."""
    answers = [record for record in records if record["kind"] == "answer"]
    count = len(answers)
    return Sample(
        np.array([[a["descriptors"][name] for name in names] for a in answers], dtype=float).reshape(count, len(names)),
        np.array([a["probabilities"] for a in answers], dtype=float).reshape(count, len(labels)),
        np.array([a["features"] for a in answers], dtype=float).reshape(count, -1 if count else 0),
        np.array([labels.index(a["label"]) for a in answers], dtype=np.int64),
    )


def labels_from_feedback(records: Sequence[Mapping[str, Any]], release: str, labels: Sequence[str]) -> Labelled:
    """Labels of inputs that ``release`` answered; imported rows, which have no answer, are skipped."""
    index = {label: number for number, label in enumerate(labels)}
    own = [r for r in records if r["answered"] is not None and r["answered"]["release"] == release]
    return Labelled(
        np.array([index.get(r["label"], -1) for r in own], dtype=np.int64),
        np.array([index.get(r["answered"]["label"], -1) for r in own], dtype=np.int64),
    )
