"""A shift of the label mix: how labels occur now, and what scores, weights and a reference must become for it.

Saerens, Latinne and Decaestecker 2002 (Neural Computation 14, 21-41): where only the share of each label changes, and not
how the inputs of a label look, a calibrated score is put right by the ratio of the shares, and the new shares are found from
the scores alone, by expectation maximisation. Pure functions of arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.decision import Floats, softmax

Labels = npt.NDArray[np.integer]
LEAST = 0.001
"""The smallest share of a label: one of zero could never be answered again."""
TEMPERATURES = (0.5, 20.0)
"""As in ``tasks.metrics.temperature``: on data without an error the best one is 0, where every score is sure."""
ROUNDS, CLOSE = 10_000, 1e-9


def estimated_mix(probabilities: Floats, mix: Floats, counts: Floats | None = None) -> npt.NDArray[np.float64]:
    """The share of each label ``[labels]`` among these rows, of greatest likelihood.

    ``probabilities`` ``[n, labels]`` are scores, calibrated for the shares ``mix``, of rows whose label is not known;
    ``counts`` ``[labels]`` are the numbers of rows of each label among those whose label is. The likelihood is concave in the
    shares, so the maximum is the only one.
    """
    found = np.asarray(mix, dtype=np.float64)
    known = np.zeros(len(found)) if counts is None else np.asarray(counts, dtype=np.float64)
    for _ in range(ROUNDS):
        weighed = probabilities * (found / mix)
        expected = (weighed / weighed.sum(axis=1, keepdims=True)).sum(axis=0) + known
        before, found = found, expected / expected.sum()
        if np.abs(found - before).max() < CLOSE:
            break
    return _possible(found)


def _possible(mix: Floats) -> npt.NDArray[np.float64]:
    kept = np.maximum(mix, LEAST)
    possible: npt.NDArray[np.float64] = kept / kept.sum()
    return possible


def weighted_mix(labels: Labels, weights: Floats, count: int) -> npt.NDArray[np.float64]:
    """The share of each of ``count`` labels among rows that weigh ``weights``."""
    return _possible(np.bincount(labels, weights, minlength=count) / weights.sum())


def weights_in(mix: Floats, labels: Labels, weights: Floats) -> npt.NDArray[np.float64]:
    """``weights`` ``[n]``, with those of each label multiplied by one factor, so that labels weigh as in ``mix``.

    Their sum stays. A label without a row weighs nothing.
    """
    ratio = mix / weighted_mix(labels, weights, len(mix))
    scaled = weights * ratio[labels]
    again: npt.NDArray[np.float64] = scaled * (weights.sum() / scaled.sum())
    return again


def shifted(shift: Floats, before: Floats, mix: Floats) -> npt.NDArray[np.float64]:
    """What is added to log-probabilities in the shares ``mix``, where it was ``shift`` in the shares ``before``."""
    total = shift + np.log(mix) - np.log(before)
    centred: npt.NDArray[np.float64] = total - total.mean()
    return centred


def best_temperature(logits: Floats, shift: Floats, labels: Labels, weights: Floats) -> float:
    """The temperature of least weighted cross-entropy of ``softmax(logits / temperature + shift)`` (Guo et al. 2017)."""

    def loss(point: float) -> float:
        probabilities = softmax(logits.astype(np.float64) / np.exp(point) + shift)
        given = probabilities[np.arange(len(labels)), labels]
        return float(np.average(-np.log(np.clip(given, 1e-12, None)), weights=weights))

    low, high = np.log(TEMPERATURES)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):  # golden-section search
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def highest_threshold(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats, recall: float) -> float:
    """The highest threshold that finds a share ``recall`` of the weighted ``hits``; midway to the next score below."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum((weights * hits)[order])
    if not len(found) or found[-1] == 0:
        return 1.0
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    first = int(np.argmax(found[ends] >= recall * found[-1] - 1e-9))
    below = scores[order][ends[first + 1]] if first + 1 < len(ends) else 0.0
    return float((scores[order][ends[first]] + below) / 2)


def rows_in(mix: Floats, labels: Labels, seed: int) -> npt.NDArray[np.intp]:
    """Positions of rows with these ``labels``, as many as there can be, whose labels are in the shares ``mix``; in order.

    Drawn without replacement and by ``seed``: the tests of drift take a reference for a sample.
    """
    there = np.bincount(labels, minlength=len(mix))
    total = np.min(there / mix)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == label))[: round(total * mix[label])] for label in range(len(mix))]
    return np.sort(np.concatenate(drawn))
