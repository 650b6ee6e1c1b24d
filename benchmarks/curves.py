"""How a training came along: PR-AUC on valid over the seconds spent on training, the looks at valid counted apart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Curve = Sequence[Mapping[str, float]]
"""A point a look: ``batches`` learned, ``seconds`` of training, ``looks`` (seconds of these), ``pr_auc`` on valid."""

OURS = "ours"
"""The run that the others are measured by."""
SLACK = 0.002
"""Of PR-AUC, below the best of the weakest run: what all runs reach, and not by one lucky look."""


class Clock:
    """Takes the time of one training from here on."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self._looks, self._begin = 0.0, time.perf_counter()

    @contextmanager
    def look(self) -> Iterator[None]:
        """What is done in here is a look at valid, not training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._looks += time.perf_counter() - begin

    def note(self, batches: int, pr_auc: float) -> None:
        """What the look just taken saw."""
        seconds = time.perf_counter() - self._begin - self._looks
        self.curve.append({"batches": batches, "seconds": round(seconds, 3), "looks": round(self._looks, 3), "pr_auc": pr_auc})


def best(curve: Curve) -> float:
    return max(point["pr_auc"] for point in curve)


def seconds_to(curve: Curve, score: float) -> float | None:
    """Seconds of training until the first look that saw ``score`` or more; None where none did."""
    return next((point["seconds"] for point in curve if point["pr_auc"] >= score), None)


def reached_by_all(curves: Sequence[Curve]) -> float:
    return min(map(best, curves)) - SLACK


def summary(curve: Curve, score: float) -> dict[str, float | None]:
    """The figures of one run; ``to_score`` is None where it never saw ``score``."""
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
    """The figures of every run, and how many times as long as ours each took (``times``; None: one never got there)."""
    found: dict[str, dict[str, Any]] = {name: summary(curve, score) for name, curve in curves.items()}
    for entry in found.values():
        entry["times"] = {
            name: None if entry[name] is None or not found[OURS][name] else entry[name] / found[OURS][name]
            for name in ("seconds_a_batch", "seconds", "seconds_with_looks", "to_score")
        }
    return found


def table(figures: Mapping[str, Mapping[str, Any]], score: float) -> str:
    """All runs in Markdown, in their order."""
    heads = ["training", "batches", "s a batch", "times ours", "s", "times ours", "s with looks", "times ours"]
    heads += ["best PR-AUC on valid", f"s to {score:.4f}", "times ours"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, entry in figures.items():
        cells = [name, f"{entry['batches']:.0f}"]
        for figure, shown in (("seconds_a_batch", ".3f"), ("seconds", ",.0f"), ("seconds_with_looks", ",.0f")):
            cells += [format(entry[figure], shown), _times(entry["times"][figure])]
        to_score = "never" if entry["to_score"] is None else f"{entry['to_score']:,.0f}"
        lines.append([*cells, f"{entry['best']:.4f}", to_score, _times(entry["times"]["to_score"])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
