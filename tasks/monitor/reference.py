"""What a release is compared with: the messages of its ``reference.npz``, which no training saw, as numbers."""

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
from service.store import is_identity, release_folder
from tasks.monitor.sample import Floats, Integers, Sample, of_answers
from tasks.monitor.statistics import Centre, Columns, Places, merge_places
from tasks.stage import StageError, read_json


@dataclass(frozen=True)
class Placed:
    """Where each message of a sample stands among those of the reference."""

    places: Places
    """Of the descriptors, and last of the probability of what was answered."""
    scores: Floats
    """Normal scores of features and descriptors by their mid-ranks in the reference: no scale, no outlier."""


class Reference:
    """The messages a release is compared with: what tests ask of them is worked out once, and for a sample once."""

    def __init__(self, sample: Sample, labels: Integers, names: Sequence[str], positive: int | None) -> None:
        """``labels`` int64[n]: the true ones. ``names``: of the descriptors. ``positive``: label index, or None."""
        self.sample, self.labels, self.names, self.positive = sample, labels, list(names), positive
        self.width = sample.features.shape[1]
        self.doubt = doubt(sample.probabilities)
        self.mean_own = float(own(sample).mean())
        self.mean_descriptors = sample.descriptors.mean(axis=0)
        self.columns = Columns(np.column_stack([sample.descriptors, own(sample)]))
        self._features = Columns(sample.features)
        self._placed: WeakKeyDictionary[Sample, Placed] = WeakKeyDictionary()
        standing = self.place(sample).scores
        self.joint = Centre(standing)
        self.centre = Centre(standing[:, : self.width]) if self.width else None
        """Of the features alone."""

    def __len__(self) -> int:
        return len(self.sample)

    def place(self, sample: Sample) -> Placed:
        """``sample`` among the reference; a window is asked for again with each one that it is merged with."""
        if sample not in self._placed:
            places = self.columns.place(np.column_stack([sample.descriptors, own(sample)]))
            features = self._features.midranks(self._features.place(sample.features))
            ranks = np.hstack([features, self.columns.midranks(places)[:, :-1]])
            edge = 0.5 / len(self)
            self._placed[sample] = Placed(places, ndtri(np.clip(ranks, edge, 1 - edge)))
        return self._placed[sample]


def merge_placed(parts: Sequence[Placed]) -> Placed:
    return Placed(merge_places([part.places for part in parts]), np.concatenate([part.scores for part in parts]))


def own(sample: Sample) -> Floats:
    """Probability of each answered label."""
    found: Floats = sample.probabilities[np.arange(len(sample)), sample.answered]
    return found


def doubt(probabilities: Floats) -> Floats:
    """What the likeliest label leaves to the others."""
    left: Floats = 1 - probabilities.max(axis=1)
    return left


@dataclass(frozen=True)
class Held:
    """What a release says of the messages it is to be compared with."""

    arrays: dict[str, npt.NDArray[Any]]
    """Those of ``reference.npz``."""
    labels: list[str]
    positive: int | None
    threshold: float

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self.arrays["names"]]

    def sample_of(self, records: Sequence[dict[str, Any]]) -> Sample:
        return of_answers(records, self.names, self.labels)

    @cached_property
    def reference(self) -> Reference:
        """The same in numbers, prepared once."""
        probabilities = self.arrays["probabilities"].astype(np.float64)
        sample = Sample(
            self.arrays["descriptors"].astype(np.float64),
            probabilities,
            self.arrays["features"].astype(np.float64),
            answer(probabilities, self.positive, self.threshold),
        )
        return Reference(sample, self.arrays["label_ids"].astype(np.int64), self.names, self.positive)


def stored_reference(store: Path, release: str) -> Held:
    """The reference of a release that the journal names. Raises StageError where it is not in the store, or not readable.

    A release may answer and not be in the store: one that is packed with the service, or fixed by its configuration.
    """
    if not release:
        raise StageError("no release was served")
    if not is_identity(release) or not release_folder(store, release).exists():
        raise StageError(f"release {release} is not in the store")
    return load_reference(release_folder(store, release))


def load_reference(folder: Path) -> Held:
    """The reference of the release in ``folder``. Raises StageError where it cannot be read."""
    try:
        settings = read_json(folder / "settings.json")
        with np.load(folder / "reference.npz") as arrays:
            held: dict[str, npt.NDArray[Any]] = dict(arrays)
        held.setdefault("features", np.empty((len(held["probabilities"]), 0)))
        labels: list[str] = settings["labels"]
        positive = labels.index(settings["positive"]) if settings["positive"] is not None else None
        return Held(held, labels, positive, float(settings["threshold"]))
    except (OSError, EOFError, ValueError, LookupError, TypeError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise StageError(f"{folder}: the release's reference cannot be read: {type(error).__name__}: {reason}") from error
