"""What a search has found: the points that no other point beats, the one of them that a rule chooses, table and plot."""

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
"""What the rule of choice looks at; the least is the best."""


class Alike(Settings):
    """Differences that are none: a time is never twice the same, and a PR-AUC is of a few hundred messages."""

    bytes: float = Field(gt=0)
    """A share, as of the time."""
    latency_us: float = Field(gt=0)
    pr_auc: float = Field(gt=0)


@dataclass(frozen=True)
class Point:
    """A trial that was finished and broke no gate. All figures are of the folder that may be served, on valid."""

    trial: int
    bytes: int
    latency_us: float
    """From raw text to logits, one thread."""
    pr_auc: float
    values: Mapping[str, Any]
    """Parameters by their dotted names."""

    def box(self, alike: Alike) -> tuple[int, int, int]:
        """Where it lies, so roughly that points alike are mostly in one place; of every number less is better."""
        size, latency_us = log(self.bytes) / log1p(alike.bytes), log(self.latency_us) / log1p(alike.latency_us)
        return round(size), round(latency_us), -round(self.pr_auc / alike.pr_auc)


def front(points: Sequence[Point], alike: Alike) -> list[Point]:
    """The points that no other beats, the smallest first; of points alike the best on valid (Laumanns et al. 2002).

    One beats another where it is better in something, and worse in nothing.
    """
    best: dict[tuple[int, int, int], Point] = {}
    for point in sorted(points, key=lambda point: (-point.pr_auc, point.bytes, point.latency_us, point.trial)):
        best.setdefault(point.box(alike), point)
    kept = [
        point
        for box, point in best.items()
        if not any(other != box and all(a <= b for a, b in zip(other, box, strict=True)) for other in best)
    ]
    return sorted(kept, key=lambda point: (point.bytes, point.latency_us))


def choose(points: Sequence[Point], measure: str, least: float, alike: Alike) -> Point | None:
    """The ``smallest`` or the ``fastest`` of the front of those whose PR-AUC is not below ``least``; None: there is none."""
    good = front([point for point in points if point.pr_auc >= least], alike)
    return min(good, key=lambda point: float(getattr(point, MEASURES[measure])), default=None)


def other_than(point: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """The parameters in which a point differs, in words."""
    return ", ".join(f"{name} {value}" for name, value in point.items() if value != present[name]) or "nothing"


def rows(points: Sequence[Point], chosen: Point | None, present: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row a point, for a table."""

    def marked(point: Point) -> str:
        marks = {"chosen": point == chosen, "now": point.values == present}
        return ", ".join([str(point.trial), *(word for word, holds in marks.items() if holds)])

    return [
        {
            "trial": marked(point),
            "bytes": f"{point.bytes:,}",
            "µs a message": f"{point.latency_us:,.0f}",
            "PR-AUC valid": f"{point.pr_auc:.4f}",
            "other than params.yaml": other_than(point.values, present),
        }
        for point in points
    ]


def draw(points: Sequence[Point], best: Sequence[Point], chosen: Point | None, least: float, present: Mapping[str, Any]) -> str:
    """PR-AUC on valid against bytes as SVG, the area of a point being the time of a message; ``best`` are filled."""
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2))
    for point in points:
        axis.scatter(
            point.bytes, point.pr_auc, s=8 + 2 * point.latency_us**0.5, alpha=0.8,
            facecolors="tab:blue" if point in best else "none", edgecolors="tab:blue",
        )  # fmt: skip
    marked = [(point, "now") for point in points if point.values == present]
    marked += [(chosen, "chosen")] if chosen else []
    for point, word in marked:
        axis.annotate(word, (point.bytes, point.pr_auc), fontsize=8, xytext=(5, 5), textcoords="offset points")
    axis.axhline(least, color="grey", linestyle=":", label="least PR-AUC that is chosen")
    axis.set(xlabel="bytes", ylabel="PR-AUC on valid", xscale="log")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="lower right")
    return svg(figure)
