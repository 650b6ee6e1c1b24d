"""The tests behind the signals: of two samples each, exact or by ranks. Pure functions of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_law
from scipy.stats import hypergeom, norm

from tasks.monitor.sample import Floats


def midranks(reference: Floats, values: Floats) -> Floats:
    """Share of the sorted reference column below each value, ties counted half: ``[n, columns]``, 0 to 1."""
    ranks = np.empty(values.shape)
    for column in range(values.shape[1]):
        sought, among = values[:, column].copy(), reference[:, column]
        below, upto = np.searchsorted(among, sought, "left"), np.searchsorted(among, sought, "right")
        ranks[:, column] = (below + upto) / (2 * len(reference))
    return ranks


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share (1927); (0, 1) of nothing."""
    if n == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + confidence / 2))
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def more(hits: Any, n: int, base_hits: Any, base_n: int) -> Any:
    """p of at least so many hits among ``n``, by Fisher's exact test against ``base_hits`` of ``base_n``."""
    return hypergeom.sf(hits - 1, n + base_n, hits + base_hits, n)


def two_sided(here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> tuple[float, str]:
    """Twice the smaller tail of Fisher's exact test, and the side it is on.

    The tails are mid-p (Lancaster, 1961): the figure itself is counted half, else the test keeps well below its level.
    """
    n, m, hits, others = len(here), len(there), int(here.sum()), int(there.sum())
    half = float(hypergeom.pmf(hits, n + m, hits + others, n)) / 2
    up, down = float(more(hits, n, others, m)) - half, float(more(n - hits, n, m - others, m)) - half
    return min(1.0, 2 * min(up, down)), "up" if up < down else "down"


def rank_test(reference: Floats, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mann-Whitney, column by column, ties counted: (p two-sided, z, chance that a value exceeds a reference's).

    ``reference``: sorted columns ``[m, k]``; ``values`` ``[n, k]``.
    """
    n, m = len(values), len(reference)
    exceeds = midranks(reference, values).mean(axis=0)
    pooled = np.sort(np.concatenate([reference, values]), axis=0)
    ties = np.array([_ties(column) for column in pooled.T])
    variance = (n + m + 1 - ties / ((n + m) * (n + m - 1))) / (12 * n * m)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, (exceeds - 0.5) / np.sqrt(variance), 0.0)
    return 2 * norm.sf(np.abs(z)), z, exceeds


def _ties(column: Floats) -> float:
    """Sum of t^3 - t over the runs of equal values of a sorted column."""
    edges = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(column)]])).astype(float)
    return float((runs**3 - runs).sum())


def hotelling(reference: Floats, values: Floats) -> tuple[float, float]:
    """(p, Mahalanobis's distance) of the centres of ``values`` ``[n, k]`` and ``reference`` ``[m, k]``.

    Hotelling's T-squared with the covariance of the reference; columns that hold nothing new take no degree of freedom.
    """
    n, m = len(values), len(reference)
    covariance = np.atleast_2d(np.cov(reference, rowvar=False))
    rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
    if not 0 < rank < m:
        return 1.0, 0.0
    gap = values.mean(axis=0) - reference.mean(axis=0)
    squared = float(gap @ np.linalg.pinv(covariance, hermitian=True) @ gap)
    statistic = squared / (1 / n + 1 / m)
    return float(f_law.sf(statistic * (m - rank) / (rank * (m - 1)), rank, m - rank)), float(np.sqrt(max(0.0, squared)))
