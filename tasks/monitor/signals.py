"""Drift signals of a window: test statistics with intervals and p-values. Pure functions of arrays.

The reference is itself a sample (rows held out of training), so every test is a two-sample test: Fisher's exact test
(hypergeometric) for shares, the rank-sum test with ties for distributions, Hotelling's T-squared for centres. Each is
two-sided or names its side, and corrects for the columns it selects from (Bonferroni).

A signal tests the newest windows merged at several *scales*: few windows detect a large change early, many a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from tasks.monitor.reference import RankedSample, Reference, answer_probability, merge_ranked, uncertainty
from tasks.monitor.sample import Floats, Sample, merge
from tasks.monitor.statistics import Centre, fisher_two_sided, rank_test, wilson
from tasks.stage import Settings

Kind = Literal["drift", "quality", "figure", "trust", "health"]
DRIFT = (
    "label_mix", "uncertain_share", "estimated_accuracy", "unseen_vocabulary", "descriptors", "features", "joint",
)  # fmt: skip
"""Names of the drift signals."""
UNSEEN = "unknown_word_share"
"""The descriptor that is a signal of its own."""
RankTests = tuple[Floats, Floats, Floats]
"""Result of ``rank_test`` (p, z, probability of superiority): descriptor columns, and last the answer probability."""


@dataclass(frozen=True)
class Signal:
    """One figure of the newest ``windows`` windows merged."""

    name: str
    kind: Kind
    """drift and quality have a p-value; trust and health have a fixed limit; a figure is only shown."""
    value: float | None
    """None where there is nothing to measure it on."""
    low: float | None
    high: float | None
    """95 % interval of ``value``."""
    reference: float | None
    """The same figure of the reference; for trust and health the limit."""
    p: float | None
    """p-value; None for what is not tested."""
    direction: str
    """What changed, and in which direction: alarms confirm each other only in the same direction."""
    n: int
    """Sample size: answers, labels or requests."""
    windows: int = 1

    @property
    def key(self) -> str:
        """Identifier among the signals of a window."""
        return f"{self.name}@{self.windows}"

    @property
    def trend(self) -> str:
        """Identifier that two alarms must share to confirm each other."""
        return f"{self.name} {self.direction}".strip()


class Signals(Settings):
    scales: tuple[Annotated[int, Field(ge=1)], ...]
    """Numbers of windows to merge; 1 is one of them."""
    uncertain: float = Field(gt=0, lt=1)
    """An answer counts as uncertain where one minus its highest probability exceeds this."""

    @field_validator("scales")
    @classmethod
    def _with_the_window_itself(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in scales:  # scale 1 confirms an alarm on the next window, and counts the labels since a promotion
            raise ValueError("1 is not among them")
        return scales


def drift_signals(reference: Reference, windows: Sequence[Sample], settings: Signals) -> list[Signal]:
    """Label mix, uncertain share, estimated quality, descriptors and features, at each scale with enough windows.

    ``windows``: of one release, oldest first; the last is the one to judge.
    """
    signals: list[Signal] = []
    for scale in settings.scales:
        if scale <= len(windows) and len(windows[-1]):
            sample = merge(windows[-scale:])
            ranked = merge_ranked([reference.rank(window) for window in windows[-scale:]])
            signals += _drift_at(reference, sample, ranked, scale, settings.uncertain)
    return signals


def _drift_at(reference: Reference, sample: Sample, ranked: RankedSample, scale: int, uncertain: float) -> Iterator[Signal]:
    tests = rank_test(reference.columns, ranked.counts)
    yield label_mix(reference, sample, scale)
    yield uncertain_share(reference, sample, scale, uncertain)
    yield estimated_accuracy(reference, sample, tests, scale)
    if reference.positive is not None:
        yield estimated_f1(reference, sample, scale)
    if UNSEEN in reference.names:  # a kind without words has no such descriptor
        yield unseen_vocabulary(reference, sample, tests, scale)
    yield descriptor_drift(reference, tests, len(sample), scale)
    if reference.centre is not None:
        yield feature_drift(reference.centre, ranked.scores[:, : reference.width], scale)
    yield joint_drift(reference.joint, ranked.scores, scale)


def label_mix(reference: Reference, sample: Sample, scale: int) -> Signal:
    """The share of the label with the smallest p-value (with two labels: of the positive, or second, one)."""
    count = sample.probabilities.shape[1]
    focus = reference.positive if reference.positive is not None else 1
    labels = [focus] if count == 2 else list(range(count))
    best: tuple[float, int, str] | None = None
    for label in labels:
        p, side = fisher_two_sided(sample.answered == label, reference.sample.answered == label)
        if best is None or p < best[0]:
            best = (p, label, side)
    assert best is not None
    p, label, side = best
    return _share(
        "label_mix",
        sample.answered == label,
        reference.sample.answered == label,
        min(1.0, p * len(labels)),
        f"{label} {side}",
        scale,
    )


def uncertain_share(reference: Reference, sample: Sample, scale: int, limit: float) -> Signal:
    """The share of answers whose uncertainty exceeds ``limit``."""
    current = uncertainty(sample.probabilities) > limit
    base = reference.uncertainty > limit
    p, side = fisher_two_sided(current, base)
    return _share("uncertain_share", current, base, p, side, scale)


def _share(
    name: str, current: npt.NDArray[np.bool_], base: npt.NDArray[np.bool_], p: float, direction: str, scale: int
) -> Signal:
    low, high = wilson(float(current.sum()), len(current))
    return Signal(name, "drift", float(current.mean()), low, high, float(base.mean()), p, direction, len(current), scale)


def estimated_accuracy(reference: Reference, sample: Sample, tests: RankTests, scale: int) -> Signal:
    """Accuracy without labels: the mean calibrated probability of the answers (NannyML's CBPE).

    The probabilities are concentrated at 1, so the test uses their ranks.
    """
    probability = answer_probability(sample)
    p, z, _ = tests
    value = float(probability.mean())
    # Two sources of variance: which inputs were sampled, and which of the answers are right.
    half = 1.96 * float(np.sqrt((probability.var() + (probability * (1 - probability)).mean()) / len(probability)))
    return Signal(
        "estimated_accuracy", "drift", value, max(0.0, value - half), min(1.0, value + half), reference.mean_answer_probability,
        float(p[-1]), "up" if z[-1] > 0 else "down", len(probability), scale,
    )  # fmt: skip


def estimated_f1(reference: Reference, sample: Sample, scale: int) -> Signal:
    """F1 of the positive label without labels: from expected instead of observed counts (CBPE)."""
    assert reference.positive is not None
    value, half = _expected_f1(sample, reference.positive)
    base, _ = _expected_f1(reference.sample, reference.positive)
    return Signal(
        "estimated_f1", "figure", value, max(0.0, value - half), min(1.0, value + half), base, None, "", len(sample), scale
    )


def _expected_f1(sample: Sample, positive: int) -> tuple[float, float]:
    """(F1 = 2 TP / (answered + true) of expected counts, half-width of its 95 % interval by the delta method)."""
    answered = (sample.answered == positive).astype(float)
    probability = sample.probabilities[:, positive]
    hits, total = answered * probability, answered + probability
    if not total.sum():
        return 1.0, 0.0
    value = 2 * hits.sum() / total.sum()
    # Variance of 2 TP - F1 (answered + true) per input: of the sampling, and of each input's unknown label.
    variance = (2 * hits - value * total).var() + (probability * (1 - probability) * (2 * answered - value) ** 2).mean()
    return float(value), float(1.96 * np.sqrt(variance * len(sample)) / total.sum())


def unseen_vocabulary(reference: Reference, sample: Sample, tests: RankTests, scale: int) -> Signal:
    """The mean share of words outside the model's vocabulary; tested by ranks."""
    column = reference.names.index(UNSEEN)
    share = sample.descriptors[:, column]
    p, z, _ = tests
    value, half = float(share.mean()), 1.96 * float(share.std() / np.sqrt(len(share)))
    return Signal(
        "unseen_vocabulary", "drift", value, max(0.0, value - half), min(1.0, value + half),
        float(reference.mean_descriptors[column]), float(p[column]), "up" if z[column] > 0 else "down", len(share), scale,
    )  # fmt: skip


def descriptor_drift(reference: Reference, tests: RankTests, n: int, scale: int) -> Signal:
    """The descriptor with the smallest p-value; ``value`` is its probability of superiority over the reference."""
    columns = [number for number, name in enumerate(reference.names) if name != UNSEEN]
    p, z, superiority = (values[columns] for values in tests)
    worst = int(np.argmin(p))
    value = float(superiority[worst])
    half = 1.96 * abs(value - 0.5) / abs(float(z[worst])) if z[worst] else 0.0
    direction = f"{reference.names[columns[worst]]} {'up' if z[worst] > 0 else 'down'}"
    return Signal(
        "descriptors", "drift", value, max(0.0, value - half), min(1.0, value + half), 0.5,
        min(1.0, float(p[worst]) * len(columns)), direction, n, scale,
    )  # fmt: skip


def feature_drift(reference: Centre, scores: Floats, scale: int) -> Signal:
    """Shift of the centre of the pooled features."""
    return _centre_signal("features", reference, scores, scale)


def joint_drift(reference: Centre, scores: Floats, scale: int) -> Signal:
    """Shift of the joint centre of features and descriptors: detects what is unusual only in combination."""
    return _centre_signal("joint", reference, scores, scale)


def _centre_signal(name: str, reference: Centre, scores: Floats, scale: int) -> Signal:
    """Hotelling's T-squared test on normal scores; ``value`` is the Mahalanobis distance between the two centres.

    The covariance is the reference's only, because a window is small.
    """
    p, distance = reference.hotelling(scores)
    return Signal(name, "drift", distance, None, None, 0.0, p, "away", len(scores), scale)
