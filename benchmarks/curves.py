"""Learning curves: PR-AUC on valid over seconds of training, with the evaluations on valid ("looks") timed separately."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Curve = Sequence[Mapping[str, float]]
"""One point per evaluation: ``batches``, ``seconds`` of training, ``looks`` (seconds of evaluation), ``pr_auc`` on valid."""

OURS = "ours"
"""The run that the others are compared with."""
SLACK = 0.002
"""Subtracted from the weakest run's best PR-AUC, so that the target is not a single lucky evaluation."""


class Clock:
    """Times one training, from its construction on."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self._looks, self._begin = 0.0, time.perf_counter()

    @contextmanager
    def look(self) -> Iterator[None]:
        """A context whose time counts as evaluation on valid, not as training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._looks += time.perf_counter() - begin

    def note(self, batches: int, pr_auc: float) -> None:
        """Record the result of the evaluation just made."""
        seconds = time.perf_counter() - self._begin - self._looks
        self.curve.append({"batches": batches, "seconds": round(seconds, 3), "looks": round(self._looks, 3), "pr_auc": pr_auc})


def best(curve: Curve) -> float:
    return max(point["pr_auc"] for point in curve)


def seconds_to(curve: Curve, score: float) -> float | None:
    """Seconds of training until the first evaluation with at least ``score``; None where there is none."""
    return next((point["seconds"] for point in curve if point["pr_auc"] >= score), None)


def reached_by_all(curves: Sequence[Curve]) -> float:
    return min(map(best, curves)) - SLACK


def summary(curve: Curve, score: float) -> dict[str, float | None]:
    """The figures of one run; ``to_score`` is None where it never reached ``score``."""
    last = curve[-1]
    return {
        "batches": last["batches"],
        "seconds": last["seconds"],
        "seconds_with_looks": round(last["seconds"] + last["looks"], 3),
        "seconds_a_batch": last["seconds"] / last["batches"],
        "best": best(curve),
        "to_score": seconds_to(curve, score),
    }


def compare(curves: Mapping[str, Curve], score: float) -> dict[str, dict[str, Any]]:
    """The figures of every run, with ``times``: ratios to ours (None where one of the two never reached the score)."""
    figures: dict[str, dict[str, Any]] = {name: summary(curve, score) for name, curve in curves.items()}
    for entry in figures.values():
        entry["times"] = {
            name: None if entry[name] is None or not figures[OURS][name] else entry[name] / figures[OURS][name]
            for name in ("seconds_a_batch", "seconds", "seconds_with_looks", "to_score")
        }
    return figures


def table(figures: Mapping[str, Mapping[str, Any]], score: float) -> str:
    """All runs as a Markdown table."""
    header = ["training", "batches", "s a batch", "times ours", "s", "times ours", "s with looks", "times ours"]
    header += ["best PR-AUC on valid", f"s to {score:.4f}", "times ours"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for name, entry in figures.items():
        cells = [name, f"{entry['batches']:.0f}"]
        for figure, precision in (("seconds_a_batch", ".3f"), ("seconds", ",.0f"), ("seconds_with_looks", ",.0f")):
            cells += [format(entry[figure], precision), _times(entry["times"][figure])]
        to_score = "never" if entry["to_score"] is None else f"{entry['to_score']:,.0f}"
        lines.append([*cells, f"{entry['best']:.4f}", to_score, _times(entry["times"]["to_score"])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
