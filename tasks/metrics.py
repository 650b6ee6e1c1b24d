"""Classification metrics under bootstrap weights, for any number of labels.

With two labels the score of a row is that of the positive label (the second, if none is named). With more, each label is
ranked one-vs-rest and the metrics are macro averages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from service.decision import Floats, softmax


def ranking_curves(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats, recall: float) -> dict[str, Floats]:
    """ROC-AUC, PR-AUC (average precision) and false-positive rate at ``recall``, one value per row of weights.

    ``scores`` and ``hits`` are ``[n]``, ``weights`` ``[resamples, n]``. Equal scores share one threshold, as in scikit-learn.
    A value is NaN where a resample holds positives only, or none.
    """
    order = np.argsort(-scores, kind="stable")
    run_ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)  # the last index of each run of equal scores
    sorted_weights = weights[:, order]
    true_positives = np.cumsum(sorted_weights * hits[order], axis=1)[:, run_ends]
    false_positives = np.cumsum(sorted_weights * ~hits[order], axis=1)[:, run_ends]
    with np.errstate(divide="ignore", invalid="ignore"):
        recalls, fprs = true_positives / true_positives[:, -1:], false_positives / false_positives[:, -1:]
        precision = np.where(true_positives + false_positives > 0, true_positives / (true_positives + false_positives), 1.0)
    zeros = np.zeros((len(weights), 1))
    recall_steps = np.diff(recalls, axis=1, prepend=zeros)
    fpr_steps = np.diff(fprs, axis=1, prepend=zeros)
    mean_recalls = recalls - recall_steps / 2
    first_at_recall = np.argmax(recalls >= recall - 1e-12, axis=1)
    fpr_at_recall = np.take_along_axis(fprs, first_at_recall[:, None], axis=1)[:, 0]
    return {
        "roc_auc": (fpr_steps * mean_recalls).sum(axis=1),
        "pr_auc": np.where(np.isfinite(fprs[:, -1]), (recall_steps * precision).sum(axis=1), np.nan),
        "fpr_at_recall": np.where(np.isfinite(recalls[:, -1]), fpr_at_recall, np.nan),
    }


def one_vs_rest(logits: Floats, positive: int | None) -> dict[int, Floats]:
    """Score of each label to rank: the positive one alone, or every label one-vs-rest."""
    probabilities = softmax(logits)
    if positive is None and logits.shape[1] == 2:
        positive = 1
    if positive is not None:
        others = np.delete(logits, positive, axis=1).max(axis=1)
        return {positive: logits[:, positive].astype(np.float64) - others}  # logits, as saturated probabilities would tie
    return {label: probabilities[:, label] for label in range(logits.shape[1])}


def ranking(
    logits: Floats,
    labels: npt.NDArray[np.integer],
    positive: int | None = None,
    recall: float = 0.97,
    weights: Floats | None = None,
) -> dict[str, float]:
    """ROC-AUC, PR-AUC and false-positive rate at ``recall`` of logits ``[n, labels]``, with weights ``[n]``."""
    one_row = np.ones((1, len(labels))) if weights is None else weights[None, :]
    return {name: float(v[0]) for name, v in resampled_ranking(logits, labels, one_row, positive, recall).items()}


def resampled_ranking(
    logits: Floats, labels: npt.NDArray[np.integer], weights: Floats, positive: int | None, recall: float
) -> dict[str, Floats]:
    """As ``ranking``, for each row of ``weights``; labels that do not occur are left out of the macro average."""
    curves = [
        ranking_curves(scores, labels == label, weights, recall)
        for label, scores in one_vs_rest(logits, positive).items()
        if positive is not None or (labels == label).any()
    ]
    return {name: finite_mean([curve[name] for curve in curves]) for name in ("roc_auc", "pr_auc", "fpr_at_recall")}


def finite_mean(values: Sequence[Floats]) -> Floats:
    """The mean over labels of the finite values in each resample; NaN where there is none.

    With many labels, some have so few rows that most resamples hold none of one or another.
    """
    stacked = np.stack(values)
    finite = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(finite, stacked, 0).sum(axis=0) / finite.sum(axis=0)
    return mean


def resampled_f1(
    answers: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], weights: Floats, positive: int | None
) -> Floats:
    """F1 of the positive label, or its macro average over the labels that occur; one value per row of weights."""
    scores = []
    for label in [positive] if positive is not None else np.unique(labels):
        true_positives = weights @ ((answers == label) & (labels == label))
        errors = weights @ ((answers == label) != (labels == label))
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(2 * true_positives / (2 * true_positives + errors))
    return finite_mean(scores)


def resampled_calibration_error(
    probabilities: Floats, labels: npt.NDArray[np.integer], weights: Floats, bins: int = 15
) -> Floats:
    """Expected calibration error of the most likely label, in bins of equal mass (Nixon et al. 2019)."""
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    error = np.zeros(len(weights))
    for bin_rows in np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels))):
        gap = weights[:, bin_rows] @ (correct[bin_rows] - confidence[bin_rows])
        error += np.abs(gap)
    mean: Floats = error / weights.sum(axis=1)
    return mean


def mean_one(weights: Floats) -> npt.NDArray[np.float32]:
    """``weights`` scaled to a mean of 1, so that a weighted loss needs no other learning rate."""
    scaled: npt.NDArray[np.float32] = (weights / weights.mean()).astype(np.float32)
    return scaled


def best_threshold(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats) -> float:
    """The threshold with the highest weighted F1, midway between the two neighbouring scores."""
    order = np.argsort(-scores, kind="stable")
    run_ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    true_positives = np.cumsum((weights * hits)[order])[run_ends]
    f1 = 2 * true_positives / (np.cumsum(weights[order])[run_ends] + (weights * hits).sum())
    best = int(np.argmax(f1))
    lowest_accepted = scores[order][run_ends[best]]
    highest_rejected = scores[order][run_ends[best + 1]] if best + 1 < len(run_ends) else 0.0
    return float((lowest_accepted + highest_rejected) / 2)


def temperature(logits: Floats, labels: npt.NDArray[np.integer], weights: Floats) -> float:
    """The temperature that minimises weighted cross-entropy on held-out logits (Guo et al. 2017), by golden-section search.

    At least 0.5: on data without an error the minimum is at 0, where every probability is 0 or 1.
    """
    low, high = np.log(0.5), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits, float(np.exp(log_temperature)))
        losses = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None))
        return float(np.average(losses, weights=weights))

    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def bootstrap_weights(groups: npt.NDArray[np.str_], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Weights ``[resamples, n]`` of a cluster bootstrap over groups: near-duplicates are not independent."""
    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return counts[:, group_of].astype(np.float64)


def interval(figures: Floats, confidence: float = 0.95) -> list[float] | None:
    """The percentile interval of resampled values; None where fewer than half of them are finite."""
    finite = figures[np.isfinite(figures)]
    if len(finite) < len(figures) / 2:
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def round_all(values: Mapping[str, float], digits: int = 6) -> dict[str, float | None]:
    """Values for a report: rounded, and None where not finite."""
    return {name: round(float(value), digits) if np.isfinite(value) else None for name, value in values.items()}
