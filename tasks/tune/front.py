"""The Pareto front of a search, the rule that chooses a point of it, and its table and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, log1p
from typing import Any

from matplotlib import pyplot
from pydantic import Field

from tasks.release.report import svg
from tasks.stage import Settings

MEASURES = {"smallest": "bytes", "fastest": "latency_us"}
"""Rule of choice -> the measure it minimises."""


class Tolerances(Settings):
    """Differences regarded as noise: timings vary, and a PR-AUC is measured on a few hundred rows."""

    bytes: float = Field(gt=0)
    """A relative difference, as for the latency."""
    latency_us: float = Field(gt=0)
    pr_auc: float = Field(gt=0)


@dataclass(frozen=True)
class Point:
    """A finished trial that passed the gates. All figures are of the servable variant, on valid."""

    trial: int
    bytes: int
    latency_us: float
    """From raw input to logits, one thread."""
    pr_auc: float
    values: Mapping[str, Any]
    """Parameters by their dotted names."""

    def box(self, tolerances: Tolerances) -> tuple[int, int, int]:
        """Indices of its epsilon box, so that points within the tolerances mostly share a box; lower is better."""
        size, latency_us = log(self.bytes) / log1p(tolerances.bytes), log(self.latency_us) / log1p(tolerances.latency_us)
        return round(size), round(latency_us), -round(self.pr_auc / tolerances.pr_auc)


def front(points: Sequence[Point], tolerances: Tolerances) -> list[Point]:
    """The Pareto front by epsilon-dominance, smallest first; per box the best point on valid (Laumanns et al. 2002)."""
    best: dict[tuple[int, int, int], Point] = {}
    for point in sorted(points, key=lambda point: (-point.pr_auc, point.bytes, point.latency_us, point.trial)):
        best.setdefault(point.box(tolerances), point)
    nondominated = [
        point
        for box, point in best.items()
        if not any(other != box and all(a <= b for a, b in zip(other, box, strict=True)) for other in best)
    ]
    return sorted(nondominated, key=lambda point: (point.bytes, point.latency_us))


def choose(points: Sequence[Point], measure: str, min_pr_auc: float, tolerances: Tolerances) -> Point | None:
    """The ``smallest`` or ``fastest`` point of the front with a PR-AUC of at least ``min_pr_auc``; None where there is none."""
    candidates = front([point for point in points if point.pr_auc >= min_pr_auc], tolerances)
    return min(candidates, key=lambda point: float(getattr(point, MEASURES[measure])), default=None)


def describe_changes(point: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """The parameters of a point that differ from ``present``, as text."""
    return ", ".join(f"{name} {value}" for name, value in point.items() if value != present[name]) or "nothing"


def rows(points: Sequence[Point], chosen: Point | None, present: Mapping[str, Any]) -> list[dict[str, str]]:
    """One table row per point."""

    def label(point: Point) -> str:
        marks = {"chosen": point == chosen, "now": point.values == present}
        return ", ".join([str(point.trial), *(mark for mark, applies in marks.items() if applies)])

    return [
        {
            "trial": label(point),
            "bytes": f"{point.bytes:,}",
            "µs an input": f"{point.latency_us:,.0f}",
            "PR-AUC valid": f"{point.pr_auc:.4f}",
            "other than params.yaml": describe_changes(point.values, present),
        }
        for point in points
    ]


def draw(
    points: Sequence[Point], best: Sequence[Point], chosen: Point | None, min_pr_auc: float, present: Mapping[str, Any]
) -> str:
    """Plot of PR-AUC on valid against bytes as SVG; marker area grows with latency, and the points in ``best`` are filled."""
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2))
    for point in points:
        axis.scatter(
            point.bytes, point.pr_auc, s=8 + 2 * point.latency_us**0.5, alpha=0.8,
            facecolors="tab:blue" if point in best else "none", edgecolors="tab:blue",
        )  # fmt: skip
    annotations = [(point, "now") for point in points if point.values == present]
    annotations += [(chosen, "chosen")] if chosen else []
    for point, text in annotations:
        axis.annotate(text, (point.bytes, point.pr_auc), fontsize=8, xytext=(5, 5), textcoords="offset points")
    axis.axhline(min_pr_auc, color="grey", linestyle=":", label="least PR-AUC that is chosen")
    axis.set(xlabel="bytes", ylabel="PR-AUC on valid", xscale="log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="lower right")
    return svg(figure)
