"""Which models are worth their size and their time: ours beside the rivals that were measured on the same data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MEASURES = {"bytes": "size", "latency_us": "time"}
"""What a model costs; less is better."""
QUALITY = ("pr_auc", "f1")


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the (cost, quality) that no other dominates, the cheapest first (Pareto's front).

    One dominates another that costs no less and is no better, unless they are equal.
    """

    def dominated(name: str) -> bool:
        cost, quality = points[name]
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points.values())

    return sorted((name for name in points if not dominated(name)), key=lambda name: points[name])


def fronts(models: Mapping[str, Any], split: str, metric: str) -> dict[str, list[str]]:
    """The front of each of ``MEASURES`` on one split, of the models that have a figure there."""
    known = {name: entry for name, entry in models.items() if entry["metrics"][split][metric] is not None}
    return {
        measure: front({name: (float(entry[measure]), float(entry["metrics"][split][metric])) for name, entry in known.items()})
        for measure in MEASURES
    }


def comparable(
    rivals: Mapping[str, Any], variants: Mapping[str, Any], data: str, splits: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """(the rivals as entries beside ``variants``, none where they cannot be compared; what is to be said of them).

    ``rivals`` is what ``python -m benchmarks.speed --rivals`` wrote, ``data`` the SHA-256 of the rows that ``variants``
    were judged on. It was another run, and perhaps another machine: times are scaled by those of the variants in both.
    """
    if not rivals:
        return {}, "No rival was measured (python -m benchmarks.speed --rivals measures them)."
    names = ", ".join(rivals["models"])
    if rivals["prepared"] != data:
        return {}, f"Rivals ({names}) are left out: they were measured on other data ({rivals['prepared'][:12]})."
    both = [name for name in rivals["ours"] if name in variants]
    if not both:
        return {}, f"Rivals ({names}) are left out: no variant was measured beside them."
    pace = float(np.median([variants[name]["latency_us"] / rivals["ours"][name] for name in both]))
    entries = {
        name: {
            "bytes": entry["bytes"],
            "latency_us": round(pace * entry["latency_us"], 1),
            "metrics": {split: entry["metrics"][split] for split in splits},
        }
        for name, entry in rivals["models"].items()
    }
    return (
        entries,
        f"Rivals were timed in another run, in turns with {', '.join(both)}, by which their times are scaled ({pace:.2f}).",
    )
