"""The tests behind the signals: of two samples each, exact or by ranks. Pure functions of arrays.

What a test asks of the reference alone (its order, its ties, its covariance) is worked out once, in ``Columns`` and ``Centre``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, gammaln, ndtr, ndtri

from tasks.monitor.sample import Floats, Integers


@dataclass(frozen=True)
class Places:
    """Values ``[n, columns]``, and of each how many of the reference lie below it and how many not above it."""

    values: Floats
    below: Integers
    upto: Integers

    def __len__(self) -> int:
        return len(self.values)

    def take(self, columns: slice) -> Places:
        return Places(self.values[:, columns], self.below[:, columns], self.upto[:, columns])


def merge_places(parts: Sequence[Places]) -> Places:
    return Places(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.below for part in parts]),
        np.concatenate([part.upto for part in parts]),
    )


class Columns:
    """Columns of the reference, among which others are ranked."""

    def __init__(self, values: Floats) -> None:
        self._sorted = np.asfortranarray(np.sort(values, axis=0))
        self.ties = np.array([_ties(column) for column in self._sorted.T])
        """Of each column, the sum of t^3 - t over the runs of equal values."""

    def __len__(self) -> int:
        return len(self._sorted)

    def place(self, values: Floats) -> Places:
        below, upto = np.empty(values.shape, dtype=np.int64), np.empty(values.shape, dtype=np.int64)
        for column in range(values.shape[1]):
            sought, among = values[:, column].copy(), self._sorted[:, column]
            below[:, column], upto[:, column] = np.searchsorted(among, sought, "left"), np.searchsorted(among, sought, "right")
        return Places(values, below, upto)

    def midranks(self, places: Places) -> Floats:
        """Share of the reference below each value, ties counted half: 0 to 1."""
        ranks: Floats = (places.below + places.upto) / (2 * len(self))
        return ranks


def _ties(column: Floats) -> float:
    """Sum of t^3 - t over the runs of equal values of a sorted column."""
    edges = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(column)]])).astype(float)
    return float((runs**3 - runs).sum())


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (1927); (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def more(hits: Any, n: int, base_hits: Any, base_n: int) -> float:
    """p of at least so many hits among ``n``, by Fisher's exact test against ``base_hits`` of ``base_n``."""
    chances, first = _hypergeometric(n, base_n, int(hits + base_hits))
    return min(1.0, float(chances[int(hits) - first :].sum()))


def two_sided(here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> tuple[float, str]:
    """Twice the smaller tail of Fisher's exact test, and the side it is on.

    The tails are mid-p (Lancaster, 1961): the figure itself is counted half, else the test keeps well below its level.
    """
    hits = int(here.sum())
    chances, first = _hypergeometric(len(here), len(there), hits + int(there.sum()))
    place = hits - first
    half = float(chances[place]) / 2
    up, down = float(chances[place:].sum()) - half, float(chances[: place + 1].sum()) - half
    return min(1.0, 2 * min(up, down)), "up" if up < down else "down"


def _hypergeometric(n: int, others: int, hits: int) -> tuple[Floats, int]:
    """(chances that k of ``hits`` among ``n + others`` are among the ``n``, the first k that may be)."""
    first = max(0, hits - others)
    k = np.arange(first, min(n, hits) + 1)
    logarithms = _choose(n, k) + _choose(others, hits - k) - _choose(n + others, np.array(hits))
    return np.exp(logarithms), first


def _choose(n: int, k: npt.NDArray[Any]) -> Floats:
    """Logarithms of n over k."""
    logarithms: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithms


def rank_test(reference: Columns, places: Places) -> tuple[Floats, Floats, Floats]:
    """Mann-Whitney, column by column, ties counted: (p two-sided, z, chance that a value exceeds a reference's)."""
    n, m = len(places), len(reference)
    exceeds = reference.midranks(places).mean(axis=0)
    ties = reference.ties + _further_ties(places)
    variance = (n + m + 1 - ties / ((n + m) * (n + m - 1))) / (12 * n * m)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, (exceeds - 0.5) / np.sqrt(variance), 0.0)
    return 2 * ndtr(-np.abs(z)), z, exceeds


def _further_ties(places: Places) -> Floats:
    """By how much the values raise each column's sum of t^3 - t, beside the reference's own."""
    n, columns = places.values.shape
    order = np.argsort(places.values, axis=0)
    values = np.take_along_axis(places.values, order, axis=0)
    begins = np.ones((n, columns), dtype=bool)
    begins[1:] = values[1:] != values[:-1]
    there = np.take_along_axis(places.upto - places.below, order, axis=0).T[begins.T].astype(float)
    starts = np.flatnonzero(begins.T)  # column after column; each begins with a run
    here = np.diff(np.append(starts, n * columns)).astype(float)
    together = here + there
    further = (together**3 - together) - (there**3 - there)
    return np.bincount(starts // n, further, minlength=columns).astype(np.float64)


class Centre:
    """The centre of the reference's columns, and how they vary together."""

    def __init__(self, values: Floats) -> None:
        covariance = np.atleast_2d(np.cov(values, rowvar=False))
        self._mean, self._n = values.mean(axis=0), len(values)
        self._rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
        self._inverse = np.linalg.pinv(covariance, hermitian=True)

    def hotelling(self, values: Floats) -> tuple[float, float]:
        """(p, Mahalanobis's distance) of the centre of ``values`` ``[n, k]`` from this one.

        Hotelling's T-squared with the covariance of the reference; columns that hold nothing new take no degree of freedom.
        """
        n, m, rank = len(values), self._n, self._rank
        if not 0 < rank < m:
            return 1.0, 0.0
        gap = values.mean(axis=0) - self._mean
        squared = float(gap @ self._inverse @ gap)
        statistic = squared / (1 / n + 1 / m)
        return float(fdtrc(rank, m - rank, max(0.0, statistic) * (m - rank) / (rank * (m - 1)))), float(
            np.sqrt(max(0.0, squared))
        )
