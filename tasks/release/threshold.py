"""The threshold from which an input is answered with the positive label, chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.decision import Floats
from tasks.metrics import best_threshold

Rule = Literal["break_even", "f1"]


def break_even(scores: Floats, hits: npt.NDArray[np.bool_], weights: Floats) -> float:
    """The threshold at which as much is answered with the positive label as there is of it: precision equals recall.

    The break-even point (Lewis 1992) asks for one count, where the best F1 asks for a maximum among thresholds that are
    nearly alike: resampled, it moves less. Midway between the two scores that it lies between.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    answered = np.cumsum(weights[order])[ends]
    best = int(np.argmin(np.abs(answered - (weights * hits).sum())))
    below = scores[order][ends[best + 1]] if best + 1 < len(ends) else 0.0
    return float((scores[order][ends[best]] + below) / 2)


RULES: dict[Rule, Callable[[Floats, npt.NDArray[np.bool_], Floats], float]] = {"break_even": break_even, "f1": best_threshold}
"""``evaluate.threshold``: scores, which of them are hits, and what each counts, each ``[n]``, to a threshold."""
