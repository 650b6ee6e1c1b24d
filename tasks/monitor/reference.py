"""What a release is compared with: the messages of its ``reference.npz``, which no training saw, as numbers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from service.decision import decide as answer
from service.store import is_identity, release_folder
from tasks.monitor.sample import Floats, Integers, Sample, of_answers
from tasks.monitor.statistics import midranks
from tasks.stage import StageError, read_json


class Reference:
    """The messages a release is compared with, prepared once: columns sorted, and their normal scores."""

    def __init__(self, sample: Sample, labels: Integers, names: Sequence[str], positive: int | None) -> None:
        """``labels`` int64[n]: the true ones. ``names``: of the descriptors. ``positive``: label index, or None."""
        self.sample, self.labels, self.names, self.positive = sample, labels, list(names), positive
        self.descriptors = np.asfortranarray(np.sort(sample.descriptors, axis=0))
        self.doubt = np.sort(doubt(sample.probabilities))[:, None]
        self.space = np.hstack([sample.features, sample.descriptors])
        self._sorted_space = np.asfortranarray(np.sort(self.space, axis=0))
        self.standing = self.scores(self.space)
        self.width = sample.features.shape[1]

    def __len__(self) -> int:
        return len(self.sample)

    def scores(self, space: Floats) -> Floats:
        """Normal scores ``[n, d + names]`` of columns by their mid-ranks in the reference: no scale, no outlier."""
        ranks = midranks(self._sorted_space, space)
        edge = 0.5 / len(self._sorted_space)
        scores: Floats = ndtri(np.clip(ranks, edge, 1 - edge))
        return scores


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
