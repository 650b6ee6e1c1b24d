"""Figures of quality, with the weights of a bootstrap, for any number of labels.

With two labels a message's score is that of the positive label (the second, where none is named). With more, each
label is ranked against all others and the figures are the macro average (one-vs-rest).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from service.decision import Floats, softmax


def ranking_curves(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats, recall: float) -> dict[str, Floats]:
    """ROC-AUC, PR-AUC (average precision) and false-positive rate at ``recall``, one figure for each row of weights.

    ``scores`` and ``hits`` are ``[n]``, ``weights`` ``[resamples, n]``. Equal scores count as one threshold, as in
    scikit-learn. A figure is NaN where a resample holds hits only, or none.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)  # the last of each run of equal scores
    weighted = weights[:, order]
    true = np.cumsum(weighted * hits[order], axis=1)[:, ends]
    false = np.cumsum(weighted * ~hits[order], axis=1)[:, ends]
    with np.errstate(divide="ignore", invalid="ignore"):
        recalls, fallout = true / true[:, -1:], false / false[:, -1:]
        precision = np.where(true + false > 0, true / (true + false), 1.0)
    before = np.zeros((len(weights), 1))
    recall_steps = np.diff(recalls, axis=1, prepend=before)
    fallout_steps = np.diff(fallout, axis=1, prepend=before)
    heights = recalls - recall_steps / 2
    first = np.argmax(recalls >= recall - 1e-12, axis=1)
    at_recall = np.take_along_axis(fallout, first[:, None], axis=1)[:, 0]
    return {
        "roc_auc": (fallout_steps * heights).sum(axis=1),
        "pr_auc": np.where(np.isfinite(fallout[:, -1]), (recall_steps * precision).sum(axis=1), np.nan),
        "fpr_at_recall": np.where(np.isfinite(recalls[:, -1]), at_recall, np.nan),
    }


def one_vs_rest(logits: Floats, positive: int | None) -> dict[int, Floats]:
    """Score of each label that is ranked: the positive one alone, or every label against all others."""
    probabilities = softmax(logits)
    if positive is None and logits.shape[1] == 2:
        positive = 1
    if positive is not None:
        others = np.delete(logits, positive, axis=1).max(axis=1)
        return {positive: logits[:, positive].astype(np.float64) - others}  # no ties where a probability saturates
    return {label: probabilities[:, label] for label in range(logits.shape[1])}


def ranking(
    logits: Floats,
    labels: npt.NDArray[np.integer],
    positive: int | None = None,
    recall: float = 0.97,
    weights: Floats | None = None,
) -> dict[str, float]:
    """ROC-AUC, PR-AUC and false-positive rate at ``recall`` of one set of logits ``[n, labels]``, weighted by ``[n]``."""
    one_row = np.ones((1, len(labels))) if weights is None else weights[None, :]
    return {name: float(v[0]) for name, v in resampled_ranking(logits, labels, one_row, positive, recall).items()}


def resampled_ranking(
    logits: Floats, labels: npt.NDArray[np.integer], weights: Floats, positive: int | None, recall: float
) -> dict[str, Floats]:
    """As ``ranking``, for each row of ``weights``; labels that do not occur in it are left out of its macro average."""
    curves = [
        ranking_curves(scores, labels == label, weights, recall)
        for label, scores in one_vs_rest(logits, positive).items()
        if positive is not None or (labels == label).any()
    ]
    return {name: mean_of_found([curve[name] for curve in curves]) for name in ("roc_auc", "pr_auc", "fpr_at_recall")}


def mean_of_found(figures: Sequence[Floats]) -> Floats:
    """The mean over labels, of those that have a figure in a resample; NaN where none has.

    Of many labels some have so few messages that most resamples hold none of one or another.
    """
    stacked = np.stack(figures)
    found = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(found, stacked, 0).sum(axis=0) / found.sum(axis=0)
    return mean


def resampled_f1(
    answers: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], weights: Floats, positive: int | None
) -> Floats:
    """F1 of the positive label, or the macro average over the labels that occur; one figure for each row of weights."""
    figures = []
    for label in [positive] if positive is not None else np.unique(labels):
        true = weights @ ((answers == label) & (labels == label))
        wrong = weights @ ((answers == label) != (labels == label))
        with np.errstate(divide="ignore", invalid="ignore"):
            figures.append(2 * true / (2 * true + wrong))
    return mean_of_found(figures)


def resampled_calibration_error(
    probabilities: Floats, labels: npt.NDArray[np.integer], weights: Floats, bins: int = 15
) -> Floats:
    """Expected calibration error of the likeliest label, in bins of equal mass (Nixon et al. 2019)."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    error = np.zeros(len(weights))
    for part in np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels))):
        gap = weights[:, part] @ (right[part] - confidence[part])
        error += np.abs(gap)
    share: Floats = error / weights.sum(axis=1)
    return share


def mean_one(weights: Floats) -> npt.NDArray[np.float32]:
    """``weights`` scaled to a mean of 1, so that a loss weighted by them asks for the same learning rate."""
    scaled: npt.NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return scaled


def best_threshold(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats) -> float:
    """The threshold of the highest weighted F1, midway between the two scores that it lies between."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    true = np.cumsum((weights * hits)[order])[ends]
    f1 = 2 * true / (np.cumsum(weights[order])[ends] + (weights * hits).sum())
    best = int(np.argmax(f1))
    here = scores[order][ends[best]]
    below = scores[order][ends[best + 1]] if best + 1 < len(ends) else 0.0
    return float((here + below) / 2)


def temperature(logits: Floats, labels: npt.NDArray[np.integer], weights: Floats) -> float:
    """The temperature of least weighted cross-entropy on held-out logits (Guo et al. 2017), by golden-section search.

    At least 0.5: on data without an error the least is at 0, where every score is sure.
    """
    low, high = np.log(0.5), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(point: float) -> float:
        probabilities = softmax(logits, float(np.exp(point)))
        losses = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None))
        return float(np.average(losses, weights=weights))

    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def bootstrap_weights(groups: npt.NDArray[np.str_], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Weights ``[resamples, n]`` that draw whole groups with replacement: near-duplicates are not independent."""
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, member].astype(np.float64)


def interval(figures: Floats, confidence: float = 0.95) -> list[float] | None:
    """The percentile interval of resampled figures; None where too few resamples have one."""
    finite = figures[np.isfinite(figures)]
    if len(finite) < len(figures) / 2:
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def round_all(values: Mapping[str, float], digits: int = 6) -> dict[str, float | None]:
    """Figures for a report: rounded, and None where there is none."""
    return {name: round(float(value), digits) if np.isfinite(value) else None for name, value in values.items()}
