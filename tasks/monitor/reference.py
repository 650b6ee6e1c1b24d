"""Reference samples of releases: the held-out rows of ``reference.npz`` as arrays, prepared for the tests."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from service.decision import decide as answer
from service.decision import positive_index
from service.store import is_identity, release_folder
from tasks.files import read_json
from tasks.monitor.sample import Floats, Integers, Sample, sample_from_answers
from tasks.monitor.statistics import Centre, Columns, RankCounts, merge_rank_counts
from tasks.stage import StageError


@dataclass(frozen=True)
class RankedSample:
    """The ranks of a sample's inputs within the reference."""

    counts: RankCounts
    """Columns: the descriptors, and last the probability of the answered label."""
    scores: Floats
    """Normal scores of features and descriptors by their mid-ranks in the reference: robust to scale and outliers."""


class Reference:
    """The reference sample of a release; what the tests need of it is computed once, and once per compared sample."""

    def __init__(self, sample: Sample, labels: Integers, names: Sequence[str], positive: int | None) -> None:
        """``labels`` int64[n]: true labels. ``names``: of the descriptors. ``positive``: label index, or None."""
        self.sample, self.labels, self.names, self.positive = sample, labels, list(names), positive
        self.width = sample.features.shape[1]
        self.uncertainty = uncertainty(sample.probabilities)
        self.mean_answer_probability = float(answer_probability(sample).mean())
        self.mean_descriptors = sample.descriptors.mean(axis=0)
        self.columns = Columns(np.column_stack([sample.descriptors, answer_probability(sample)]))
        self._features = Columns(sample.features)
        self._ranked: WeakKeyDictionary[Sample, RankedSample] = WeakKeyDictionary()
        scores = self.rank(sample).scores
        self.joint = Centre(scores)
        self.centre = Centre(scores[:, : self.width]) if self.width else None
        """Of the features only."""

    def __len__(self) -> int:
        return len(self.sample)

    def rank(self, sample: Sample) -> RankedSample:
        """The ranks of ``sample`` in the reference, cached: a window is used again in each merge with later windows."""
        if sample not in self._ranked:
            counts = self.columns.rank(np.column_stack([sample.descriptors, answer_probability(sample)]))
            features = self._features.midranks(self._features.rank(sample.features))
            ranks = np.hstack([features, self.columns.midranks(counts)[:, :-1]])
            edge = 0.5 / len(self)
            self._ranked[sample] = RankedSample(counts, ndtri(np.clip(ranks, edge, 1 - edge)))
        return self._ranked[sample]


def merge_ranked(parts: Sequence[RankedSample]) -> RankedSample:
    return RankedSample(merge_rank_counts([part.counts for part in parts]), np.concatenate([part.scores for part in parts]))


def answer_probability(sample: Sample) -> Floats:
    """The probability of each answered label."""
    probabilities: Floats = sample.probabilities[np.arange(len(sample)), sample.answered]
    return probabilities


def uncertainty(probabilities: Floats) -> Floats:
    """One minus the probability of the most likely label."""
    uncertainties: Floats = 1 - probabilities.max(axis=1)
    return uncertainties


@dataclass(frozen=True)
class ReferenceData:
    """The stored reference of a release, with the settings needed to read it."""

    arrays: dict[str, npt.NDArray[Any]]
    """Contents of ``reference.npz``."""
    labels: list[str]
    positive: int | None
    threshold: float

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.arrays["names"]]

    def sample_of(self, records: Sequence[dict[str, Any]]) -> Sample:
        return sample_from_answers(records, self.names, self.labels)

    @cached_property
    def reference(self) -> Reference:
        """The prepared reference, computed once."""
        probabilities = self.arrays["probabilities"].astype(np.float64)
        sample = Sample(
            self.arrays["descriptors"].astype(np.float64),
            probabilities,
            self.arrays["features"].astype(np.float64),
            answer(probabilities, self.positive, self.threshold),
        )
        return Reference(sample, self.arrays["label_ids"].astype(np.int64), self.names, self.positive)


def stored_reference(store: Path, release: str) -> ReferenceData:
    """The reference of a release named in the journal. Raises StageError where it is not in the store or cannot be read.

    A serving release may be missing from the store: one packed with the service, or fixed by its configuration.
    """
    if not release:
        raise StageError("no release was served")
    if not is_identity(release) or not release_folder(store, release).exists():
        raise StageError(f"release {release} is not in the store")
    return load_reference(release_folder(store, release))


def load_reference(folder: Path) -> ReferenceData:
    """The reference of the release in ``folder``. Raises StageError where it cannot be read."""
    try:
        settings = read_json(folder / "settings.json")
        with np.load(folder / "reference.npz") as arrays:
            contents: dict[str, npt.NDArray[Any]] = dict(arrays)
        contents.setdefault("features", np.empty((len(contents["probabilities"]), 0)))
        labels: list[str] = settings["labels"]
        positive = positive_index(settings)
        return ReferenceData(contents, labels, positive, float(settings["threshold"]))
    except (OSError, EOFError, ValueError, LookupError, TypeError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise StageError(f"{folder}: the release's reference cannot be read: {type(error).__name__}: {reason}") from error
