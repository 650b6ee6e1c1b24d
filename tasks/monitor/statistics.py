"""Two-sample tests behind the signals: Fisher's exact test, rank sums, Hotelling's T-squared. Pure functions of arrays.

What depends on the reference only (its order, ties, covariance) is computed once, in ``Columns`` and ``Centre``.
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
class RankCounts:
    """Values ``[n, columns]``, and for each the number of reference values below it, and at or below it."""

    values: Floats
    below: Integers
    upto: Integers

    def __len__(self) -> int:
        return len(self.values)

    def take(self, columns: slice) -> RankCounts:
        return RankCounts(self.values[:, columns], self.below[:, columns], self.upto[:, columns])


def merge_rank_counts(parts: Sequence[RankCounts]) -> RankCounts:
    return RankCounts(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.below for part in parts]),
        np.concatenate([part.upto for part in parts]),
    )


class Columns:
    """The reference's columns, sorted, in which other values are ranked."""

    def __init__(self, values: Floats) -> None:
        self._sorted = np.asfortranarray(np.sort(values, axis=0))
        self.ties = np.array([_ties(column) for column in self._sorted.T])
        """Per column, the sum of t^3 - t over the runs of equal values."""

    def __len__(self) -> int:
        return len(self._sorted)

    def rank(self, values: Floats) -> RankCounts:
        below, upto = np.empty(values.shape, dtype=np.int64), np.empty(values.shape, dtype=np.int64)
        for column in range(values.shape[1]):
            queries, reference = values[:, column].copy(), self._sorted[:, column]
            below[:, column] = np.searchsorted(reference, queries, "left")
            upto[:, column] = np.searchsorted(reference, queries, "right")
        return RankCounts(values, below, upto)

    def midranks(self, counts: RankCounts) -> Floats:
        """Share of the reference below each value, ties counting half: 0 to 1."""
        ranks: Floats = (counts.below + counts.upto) / (2 * len(self))
        return ranks


def _ties(column: Floats) -> float:
    """Sum of t^3 - t over the runs of equal values of a sorted column."""
    edges = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(column)]])).astype(float)
    return float((runs**3 - runs).sum())


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (1927); (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def fisher_greater(hits: Any, n: int, base_hits: Any, base_n: int) -> float:
    """One-sided p-value of Fisher's exact test: at least ``hits`` among ``n``, against ``base_hits`` among ``base_n``."""
    probabilities, first = _hypergeometric(n, base_n, int(hits + base_hits))
    return min(1.0, float(probabilities[int(hits) - first :].sum()))


def fisher_two_sided(sample: npt.NDArray[np.bool_], base: npt.NDArray[np.bool_]) -> tuple[float, str]:
    """(two-sided p-value of Fisher's exact test, the direction): twice the smaller tail.

    The tails are mid-p (Lancaster, 1961): the observed count enters by half, or the test would be conservative.
    """
    hits = int(sample.sum())
    probabilities, first = _hypergeometric(len(sample), len(base), hits + int(base.sum()))
    observed = hits - first
    half = float(probabilities[observed]) / 2
    up, down = float(probabilities[observed:].sum()) - half, float(probabilities[: observed + 1].sum()) - half
    return min(1.0, 2 * min(up, down)), "up" if up < down else "down"


def _hypergeometric(n: int, others: int, hits: int) -> tuple[Floats, int]:
    """(probabilities that k of ``hits`` among ``n + others`` are among the ``n``, the smallest possible k)."""
    first = max(0, hits - others)
    k = np.arange(first, min(n, hits) + 1)
    logarithms = _choose(n, k) + _choose(others, hits - k) - _choose(n + others, np.array(hits))
    return np.exp(logarithms), first


def _choose(n: int, k: npt.NDArray[Any]) -> Floats:
    """Logarithms of the binomial coefficients n over k."""
    logarithms: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithms


def rank_test(reference: Columns, counts: RankCounts) -> tuple[Floats, Floats, Floats]:
    """Mann-Whitney test per column, corrected for ties: (two-sided p, z, probability of superiority over the reference)."""
    n, m = len(counts), len(reference)
    superiority = reference.midranks(counts).mean(axis=0)
    ties = reference.ties + _added_ties(counts)
    variance = (n + m + 1 - ties / ((n + m) * (n + m - 1))) / (12 * n * m)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, (superiority - 0.5) / np.sqrt(variance), 0.0)
    return 2 * ndtr(-np.abs(z)), z, superiority


def _added_ties(counts: RankCounts) -> Floats:
    """By how much the values raise each column's sum of t^3 - t above that of the reference."""
    n, columns = counts.values.shape
    order = np.argsort(counts.values, axis=0)
    values = np.take_along_axis(counts.values, order, axis=0)
    is_start = np.ones((n, columns), dtype=bool)
    is_start[1:] = values[1:] != values[:-1]
    reference_ties = np.take_along_axis(counts.upto - counts.below, order, axis=0).T[is_start.T].astype(float)
    starts = np.flatnonzero(is_start.T)  # column after column; each starts with a run
    sample_ties = np.diff(np.append(starts, n * columns)).astype(float)
    ties = sample_ties + reference_ties
    added = (ties**3 - ties) - (reference_ties**3 - reference_ties)
    return np.bincount(starts // n, added, minlength=columns).astype(np.float64)


class Centre:
    """Mean vector and covariance of the reference's columns."""

    def __init__(self, values: Floats) -> None:
        covariance = np.atleast_2d(np.cov(values, rowvar=False))
        self._mean, self._n = values.mean(axis=0), len(values)
        self._rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
        self._inverse = np.linalg.pinv(covariance, hermitian=True)

    def hotelling(self, values: Floats) -> tuple[float, float]:
        """(p-value, Mahalanobis distance) of the mean of ``values`` ``[n, k]`` against the reference's.

        Hotelling's T-squared with the covariance of the reference; linearly dependent columns take no degree of freedom.
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
