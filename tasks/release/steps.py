"""What one step of the compression path won and lost: size, time, and quality on the same rows, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from service.decision import Floats, decide, softmax
from tasks import metrics
from tasks.stage import StageError

WHOLE = "the whole path"
RATIOS = {"times_smaller": "bytes", "times_faster": "latency_us"}


Steps = Mapping[str, tuple[str, str]]
"""(parent, child) by what the step is called."""


def steps_along(path: Sequence[str]) -> Steps:
    """Each step of ``path``, and all steps together where they are more than one."""
    steps = {f"{parent} to {child}": (parent, child) for parent, child in pairwise(path)}
    return steps | ({WHOLE: (path[0], path[-1])} if len(path) > 2 else {})


def steps_beside(others: Sequence[str], student: str) -> Steps:
    """The student held against others that it was not made of, as if it were their child."""
    return {f"{student} against {other}": (other, student) for other in others}


def known(names: Sequence[str], variants: Mapping[str, Any], parameter: str) -> None:
    """Raises StageError where evaluate knows one of ``names`` not."""
    for name in names:
        if name not in variants:
            raise StageError(f"{parameter}: {name!r}: evaluate knows {', '.join(variants)}")


def resampled(
    logits: Floats, rows: pd.DataFrame, chosen: Mapping[str, float], positive: int | None, weights: Floats
) -> dict[str, Floats]:
    """PR-AUC and F1 of one variant, a figure for each row of ``weights`` ``[resamples, n]``, at what valid has chosen."""
    labels = rows.label_id.to_numpy()
    answers = decide(softmax(logits, chosen["temperature"]), positive, chosen["threshold"])
    return {
        "pr_auc": metrics.resampled_ranking(logits, labels, weights, positive, recall=1.0)["pr_auc"],
        "f1": metrics.resampled_f1(answers, labels, weights, positive),
    }


def differences(
    steps: Steps,
    logits: Mapping[str, Floats],
    rows: pd.DataFrame,
    variants: Mapping[str, Any],
    positive: int | None,
    draws: tuple[int, int],
) -> dict[str, Any]:
    """By step and figure: child minus parent on the ``rows`` of one split, whose index is the place of their logits.

    ``draws`` is (resamples, seed). In each resample of near-duplicate groups both answer the same inputs, so what is
    hard for both cancels out.
    """
    drawn = metrics.bootstrap_weights(rows.group.to_numpy(dtype=str), *draws)
    weights = np.vstack([np.ones(len(rows)), drawn])  # the first row is the split as it is
    asked = dict.fromkeys(name for pair in steps.values() for name in pair)
    figures = {name: resampled(logits[name][rows.index], rows, variants[name], positive, weights) for name in asked}
    return {
        step: {metric: _difference(figures[child][metric] - values) for metric, values in figures[parent].items()}
        for step, (parent, child) in steps.items()
    }


def _difference(values: Floats) -> dict[str, Any]:
    between = metrics.interval(values[1:]) if np.isfinite(values[0]) else None
    between = None if between is None else [round(end, 6) for end in between]
    return {**metrics.round_all({"value": float(values[0])}), "interval": between, "verdict": verdict(between)}


def verdict(between: Sequence[float] | None) -> str:
    """What an interval of a difference shows, in a plain word."""
    if between is None:
        return "not measured"
    low, high = between
    return "won" if low > 0 else "lost" if high < 0 else "no difference shown"


def ratios(steps: Steps, variants: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By step: how many times smaller and faster the child is than its parent."""
    return {
        step: {name: round(variants[parent][cost] / variants[child][cost], 2) for name, cost in RATIOS.items()}
        for step, (parent, child) in steps.items()
    }
