"""Signals of realised quality: error, precision and recall on confirmed labels, against those of the reference.

Labels come late and are few, so these signals merge windows as the others do. Intervals are Wilson's. Reviewers who report
only mistakes make every release look worse than it is: label a random sample of the traffic as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.monitor.reference import Reference
from tasks.monitor.sample import Labelled, merge_labelled
from tasks.monitor.signals import Signal, Signals
from tasks.monitor.statistics import fisher_greater, wilson

QUALITY = ("realised_error", "realised_precision", "realised_recall")
"""Names of the signals of realised quality."""


def quality_signals(reference: Reference, windows: Sequence[Labelled], settings: Signals) -> list[Signal]:
    """``windows``: the labels received in each window for answers of the release, oldest first."""
    base = Labelled(reference.labels, reference.sample.answered)
    signals: list[Signal] = []
    for scale in settings.scales:
        if scale <= len(windows):
            signals += _quality_at(merge_labelled(windows[-scale:]), base, reference.positive, scale)
    return signals


def _quality_at(labelled: Labelled, base: Labelled, positive: int | None, scale: int) -> Iterator[Signal]:
    wrong, base_wrong = labelled.labels != labelled.answered, base.labels != base.answered
    yield _error_signal("realised_error", wrong, base_wrong, scale)
    if positive is not None:
        for name, subset, base_subset in (
            ("realised_precision", labelled.answered == positive, base.answered == positive),
            ("realised_recall", labelled.labels == positive, base.labels == positive),
        ):
            yield _error_signal(name, wrong[subset], base_wrong[base_subset], scale, correct=True)


def _error_signal(
    name: str, wrong: npt.NDArray[np.bool_], base: npt.NDArray[np.bool_], scale: int, *, correct: bool = False
) -> Signal:
    """One share of wrong answers (``correct``: of right ones), tested one-sided for more errors than in the reference."""
    direction = "down" if correct else "up"
    reference = float(np.mean(base != correct)) if len(base) else None
    if not len(wrong) or not len(base):
        return Signal(name, "quality", None, None, None, reference, None, direction, len(wrong), scale)
    share = float(np.mean(wrong != correct))
    low, high = wilson(share * len(wrong), len(wrong))
    p = float(fisher_greater(wrong.sum(), len(wrong), base.sum(), len(base)))
    return Signal(name, "quality", share, low, high, reference, p, direction, len(wrong), scale)
