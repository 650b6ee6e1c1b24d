"""What confirmed labels say: realised error, precision and recall, with Wilson's intervals, against the reference's own.

Labels come late and are few, so these signals merge windows as the others do. Reviewers who report mistakes alone make
every release look worse than it is: label a random share of the traffic as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tasks.monitor.reference import Reference
from tasks.monitor.sample import Labelled, merge_labelled
from tasks.monitor.signals import Signal, Signals
from tasks.monitor.statistics import more, wilson

QUALITY = ("realised_error", "realised_precision", "realised_recall")
"""Names of the signals of realised quality."""


def quality_signals(reference: Reference, windows: Sequence[Labelled], settings: Signals) -> list[Signal]:
    """``windows``: the labels that came in each window, oldest first, of answers of the release in question."""
    base = Labelled(reference.labels, reference.sample.answered)
    found: list[Signal] = []
    for scale in settings.scales:
        if scale <= len(windows):
            found += _quality_at(merge_labelled(windows[-scale:]), base, reference.positive, scale)
    return found


def _quality_at(labelled: Labelled, base: Labelled, positive: int | None, scale: int) -> Iterator[Signal]:
    wrong, base_wrong = labelled.labels != labelled.answered, base.labels != base.answered
    yield _lost("realised_error", wrong, base_wrong, scale)
    if positive is not None:
        for name, side, other in (
            ("realised_precision", labelled.answered == positive, base.answered == positive),
            ("realised_recall", labelled.labels == positive, base.labels == positive),
        ):
            yield _lost(name, wrong[side], base_wrong[other], scale, kept=True)


def _lost(name: str, wrong: npt.NDArray[np.bool_], base: npt.NDArray[np.bool_], scale: int, *, kept: bool = False) -> Signal:
    """One share of wrong answers (``kept``: of right ones), tested for more mistakes than the reference has."""
    direction = "down" if kept else "up"
    reference = float(np.mean(base != kept)) if len(base) else None
    if not len(wrong) or not len(base):
        return Signal(name, "quality", None, None, None, reference, None, direction, len(wrong), scale)
    share = float(np.mean(wrong != kept))
    low, high = wilson(share * len(wrong), len(wrong))
    p = float(more(wrong.sum(), len(wrong), base.sum(), len(base)))
    return Signal(name, "quality", share, low, high, reference, p, direction, len(wrong), scale)
