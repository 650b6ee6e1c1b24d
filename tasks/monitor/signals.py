"""What a window says, figure by figure, each with its uncertainty. Arrays in, signals out; no file, no clock.

The reference is itself a sample (messages held out of training), so every p is of two samples: shares by the
hypergeometric law (Fisher's exact test), distributions by rank sums with their ties, centres by Hotelling's T-squared.
Each is two-sided or names its one side, and counts the columns it chose among (Bonferroni).

A signal looks at the newest windows merged at several *scales*: few windows see a large change soon, many see a small one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from tasks.monitor.reference import Placed, Reference, doubt, merge_placed, own
from tasks.monitor.sample import Floats, Sample, merge
from tasks.monitor.statistics import Centre, rank_test, two_sided, wilson
from tasks.stage import Settings

Kind = Literal["drift", "quality", "figure", "trust", "health"]
DRIFT = (
    "label_mix", "uncertain_share", "estimated_accuracy", "unseen_vocabulary", "descriptors", "features", "joint",
)  # fmt: skip
"""Names of the drift signals."""
UNSEEN = "unknown_word_share"
"""The descriptor that is a signal of its own."""
Ranked = tuple[Floats, Floats, Floats]
"""What ``rank_test`` says of the columns that are placed: the descriptors, and last the probability of what was answered."""


@dataclass(frozen=True)
class Signal:
    """One measured figure of the newest ``windows`` windows together."""

    name: str
    kind: Kind
    """drift and quality are tested (p); trust and health have a fixed limit; a figure is only shown."""
    value: float | None
    """None where there is nothing to measure it on."""
    low: float | None
    high: float | None
    """95 % interval of ``value``."""
    reference: float | None
    """The same figure of the reference; of trust and health the limit."""
    p: float | None
    """Chance of such a difference, or a larger one, where nothing has changed; None for what is not tested."""
    direction: str
    """What has moved, and which way: two alarms confirm each other only in the same direction."""
    n: int
    """Messages (labels, requests) it was measured on."""
    windows: int = 1

    @property
    def key(self) -> str:
        """What it is called among the signals of its window."""
        return f"{self.name}@{self.windows}"

    @property
    def trend(self) -> str:
        """What two alarms must have in common to confirm each other."""
        return f"{self.name} {self.direction}".strip()


class Signals(Settings):
    scales: tuple[Annotated[int, Field(ge=1)], ...]
    """Windows that are merged, 1 among them."""
    uncertain: float = Field(gt=0, lt=1)
    """An answer counts as uncertain where its likeliest label leaves the others more than this."""

    @field_validator("scales")
    @classmethod
    def _with_the_window_itself(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in scales:  # there the next window confirms an alarm, and the labels of a promotion are counted
            raise ValueError("1 is not among them")
        return scales


def drift_signals(reference: Reference, windows: Sequence[Sample], settings: Signals) -> list[Signal]:
    """Label mix, uncertain share, estimated quality, descriptors and features, at each scale there are windows for.

    ``windows``: of one release, oldest first; the last is the one to judge.
    """
    found: list[Signal] = []
    for scale in settings.scales:
        if scale <= len(windows) and len(windows[-1]):
            sample = merge(windows[-scale:])
            placed = merge_placed([reference.place(window) for window in windows[-scale:]])
            found += _drift_at(reference, sample, placed, scale, settings.uncertain)
    return found


def _drift_at(reference: Reference, sample: Sample, placed: Placed, scale: int, uncertain: float) -> Iterator[Signal]:
    ranked = rank_test(reference.columns, placed.places)
    yield label_mix(reference, sample, scale)
    yield uncertain_share(reference, sample, scale, uncertain)
    yield estimated_accuracy(reference, sample, ranked, scale)
    if reference.positive is not None:
        yield estimated_f1(reference, sample, scale)
    yield unseen_vocabulary(reference, sample, ranked, scale)
    yield descriptor_drift(reference, ranked, len(sample), scale)
    if reference.centre is not None:
        yield feature_drift(reference.centre, placed.scores[:, : reference.width], scale)
    yield joint_drift(reference.joint, placed.scores, scale)


def label_mix(reference: Reference, sample: Sample, scale: int) -> Signal:
    """The share of the label that has moved most (with two labels: of the positive, or second, one)."""
    count = sample.probabilities.shape[1]
    focus = reference.positive if reference.positive is not None else 1
    labels = [focus] if count == 2 else list(range(count))
    best: tuple[float, int, str] | None = None
    for label in labels:
        p, side = two_sided(sample.answered == label, reference.sample.answered == label)
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
    """The share of answers that leave more than ``limit`` to other labels."""
    here = doubt(sample.probabilities) > limit
    there = reference.doubt > limit
    p, side = two_sided(here, there)
    return _share("uncertain_share", here, there, p, side, scale)


def _share(
    name: str, here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_], p: float, direction: str, scale: int
) -> Signal:
    low, high = wilson(float(here.sum()), len(here))
    return Signal(name, "drift", float(here.mean()), low, high, float(there.mean()), p, direction, len(here), scale)


def estimated_accuracy(reference: Reference, sample: Sample, ranked: Ranked, scale: int) -> Signal:
    """Accuracy without labels: the mean calibrated probability of what was answered (NannyML's CBPE).

    The mean is of values heaped at 1, so the test is of their ranks.
    """
    here = own(sample)
    p, z, _ = ranked
    value = float(here.mean())
    # Two uncertainties: which messages came, and which of the answers are right.
    half = 1.96 * float(np.sqrt((here.var() + (here * (1 - here)).mean()) / len(here)))
    return Signal(
        "estimated_accuracy", "drift", value, max(0.0, value - half), min(1.0, value + half), reference.mean_own,
        float(p[-1]), "up" if z[-1] > 0 else "down", len(here), scale,
    )  # fmt: skip


def estimated_f1(reference: Reference, sample: Sample, scale: int) -> Signal:
    """F1 of the positive label without labels: expected hits and misses in place of counted ones (CBPE)."""
    assert reference.positive is not None
    value, half = _expected_f1(sample, reference.positive)
    base, _ = _expected_f1(reference.sample, reference.positive)
    return Signal(
        "estimated_f1", "figure", value, max(0.0, value - half), min(1.0, value + half), base, None, "", len(sample), scale
    )


def _expected_f1(sample: Sample, positive: int) -> tuple[float, float]:
    """F1 = 2 TP / (answered + true), each expected; half of its interval by the delta method."""
    answered = (sample.answered == positive).astype(float)
    probability = sample.probabilities[:, positive]
    hits, total = answered * probability, answered + probability
    if not total.sum():
        return 1.0, 0.0
    value = 2 * hits.sum() / total.sum()
    # Variance of 2 TP - F1 (answered + true), message by message: of which came, and of the unknown label of each.
    spread = (2 * hits - value * total).var() + (probability * (1 - probability) * (2 * answered - value) ** 2).mean()
    return float(value), float(1.96 * np.sqrt(spread * len(sample)) / total.sum())


def unseen_vocabulary(reference: Reference, sample: Sample, ranked: Ranked, scale: int) -> Signal:
    """The mean share of words that the model's vocabulary does not hold; tested by ranks."""
    column = reference.names.index(UNSEEN)
    here = sample.descriptors[:, column]
    p, z, _ = ranked
    value, half = float(here.mean()), 1.96 * float(here.std() / np.sqrt(len(here)))
    return Signal(
        "unseen_vocabulary", "drift", value, max(0.0, value - half), min(1.0, value + half),
        float(reference.mean_descriptors[column]), float(p[column]), "up" if z[column] > 0 else "down", len(here), scale,
    )  # fmt: skip


def descriptor_drift(reference: Reference, ranked: Ranked, n: int, scale: int) -> Signal:
    """The descriptor that has moved most: the chance that a message exceeds one of the reference; 0.5 where nothing moved."""
    columns = [number for number, name in enumerate(reference.names) if name != UNSEEN]
    p, z, exceeds = (found[columns] for found in ranked)
    worst = int(np.argmin(p))
    value = float(exceeds[worst])
    half = 1.96 * abs(value - 0.5) / abs(float(z[worst])) if z[worst] else 0.0
    direction = f"{reference.names[columns[worst]]} {'up' if z[worst] > 0 else 'down'}"
    return Signal(
        "descriptors", "drift", value, max(0.0, value - half), min(1.0, value + half), 0.5,
        min(1.0, float(p[worst]) * len(columns)), direction, n, scale,
    )  # fmt: skip


def feature_drift(reference: Centre, scores: Floats, scale: int) -> Signal:
    """How far the centre of the pooled features has moved."""
    return _centre("features", reference, scores, scale)


def joint_drift(reference: Centre, scores: Floats, scale: int) -> Signal:
    """How far the centre of features and descriptors together has moved: sees what is odd only in combination."""
    return _centre("joint", reference, scores, scale)


def _centre(name: str, reference: Centre, scores: Floats, scale: int) -> Signal:
    """Hotelling's T-squared of normal scores; ``value`` is Mahalanobis's distance of the two centres.

    The covariance is the reference's alone: a window is small.
    """
    p, distance = reference.hotelling(scores)
    return Signal(name, "drift", distance, None, None, 0.0, p, "away", len(scores), scale)
