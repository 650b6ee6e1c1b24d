"""Every variant against the teacher: how much smaller and faster it is, and what it kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share(figure: float | None, whole_figure: float | None) -> float | None:
    """How much of a figure is kept; None where either is missing."""
    return round(figure / whole_figure, 5) if figure is not None and whole_figure else None


def below(entry: Mapping[str, Any], reference: Mapping[str, Any], split: str) -> float | None:
    """How far a variant's PR-AUC on ``split`` is below the reference's; None where either has none."""
    mine, theirs = entry["metrics"][split]["pr_auc"], reference["metrics"][split]["pr_auc"]
    return None if mine is None or theirs is None else round(theirs - mine, 6)  # figures have as many digits


def fastest_teacher(variants: Mapping[str, Any], teacher: str, margin: float) -> str:
    """The fastest variant that is still the teacher: its name begins with the teacher's, and its PR-AUC is not below the
    teacher's by more than ``margin`` on any split that has one. The teacher itself always is.
    """
    reference = variants[teacher]

    def is_teacher(name: str) -> bool:
        losses = [below(variants[name], reference, split) for split in reference["metrics"]]
        return name == teacher or (name.startswith(teacher) and all(loss <= margin for loss in losses if loss is not None))

    return min(filter(is_teacher, variants), key=lambda name: float(variants[name]["latency_us"]))


def kept(entry: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """By split and metric: how much of the reference's figure a variant keeps."""
    return {
        split: {metric: share(mine[metric], reference["metrics"][split][metric]) for metric in ("pr_auc", "accuracy", "f1")}
        for split, mine in entry["metrics"].items()
    }


def compare_with_teacher(variants: Mapping[str, Any], teacher: str, fastest: str) -> dict[str, Any]:
    """Each variant: times smaller than the teacher, times faster than its ``fastest`` form, share of each figure kept."""
    reference, pace = variants[teacher], variants[fastest]["latency_us"]
    return {
        name: {
            "times_smaller": round(reference["bytes"] / entry["bytes"], 2),
            "times_faster": round(pace / entry["latency_us"], 2),
            "kept": kept(entry, reference),
        }
        for name, entry in variants.items()
    }
