"""The evaluation as a page that opens anywhere: one HTML file, plots as inline SVG, nothing fetched."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure

from service.decision import softmax
from tasks.page import number, percent, render

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "restill"  # the same figures give the same file

NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "accuracy": "accuracy",
    "f1": "F1",
    "fpr_at_recall": "FPR at recall",
    "calibration_error": "ECE",
}

PAGE = Path(__file__).with_name("evaluation.html.j2")


def draw(
    report: Mapping[str, Any],
    logits: Mapping[str, npt.NDArray[np.float32]],
    parts: Mapping[str, pd.DataFrame],
    curves: pd.DataFrame,
) -> dict[str, str]:
    """Each plot of the report as SVG, by its title."""
    variants, splits = report["variants"], list(report["splits"])
    return {
        "Precision against recall": _precision_recall(curves, list(variants), splits),
        "Reliability": _reliability(variants, logits, parts),
        "Size against quality": _size_against_quality(variants, splits),
    }


def best_figures(variants: Mapping[str, Any], split: str) -> dict[str, float | None]:
    """The best figure of each metric on one split; None where no variant has one."""
    best: dict[str, float | None] = {}
    for metric in NAMES:
        known = [e["metrics"][split][metric] for e in variants.values() if e["metrics"][split][metric] is not None]
        choose = max if metric in ("roc_auc", "pr_auc", "accuracy", "f1") else min
        best[metric] = choose(known) if known else None
    return best


def evaluation_page(report: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The whole report as HTML; everything that came from outside is escaped."""
    return render(
        PAGE,
        **report,
        names=NAMES,
        plots=plots,
        best={split: best_figures(report["variants"], split) for split in report["splits"]},
        number=number,
        percent=percent,
        between=lambda pair: "" if pair is None else f"{pair[0]:.4f} to {pair[1]:.4f}",
    )


def svg(figure: Figure) -> str:
    """A figure as inline SVG, the same for the same figure; it is closed."""
    buffer = io.StringIO()
    figure.tight_layout()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _panels(count: int) -> tuple[Figure, list[Any]]:
    figure, axes = pyplot.subplots(1, count, figsize=(3.4 * count, 3.4), squeeze=False)
    return figure, list(axes[0])


def _precision_recall(curves: pd.DataFrame, variants: list[str], splits: list[str]) -> str:
    figure, axes = _panels(len(splits))
    for axis, split in zip(axes, splits, strict=True):
        for name in variants:
            curve = curves[(curves.variant == name) & (curves.split == split)]
            axis.plot(curve.recall, curve.precision, label=name, linewidth=1.2)
        axis.set(title=split, xlabel="recall", xlim=(0.5, 1.0), ylim=(max(0.0, curves.precision.min() - 0.02), 1.01))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("precision")
    axes[0].legend(fontsize=7, loc="lower left")
    return svg(figure)


def _reliability(variants: Mapping[str, Any], logits: Mapping[str, Any], parts: Mapping[str, pd.DataFrame]) -> str:
    """Share of right answers against the confidence they were given with, in ten bins of equal mass."""
    figure, axes = _panels(len(parts))
    for axis, (split, part) in zip(axes, parts.items(), strict=True):
        for name, entry in variants.items():
            probabilities = softmax(logits[name][part.index], entry["temperature"])
            confidence = probabilities.max(axis=1)
            right = probabilities.argmax(axis=1) == part.label_id.to_numpy()
            bins = np.array_split(np.argsort(confidence), min(10, len(part)))
            axis.plot(
                [confidence[b].mean() for b in bins], [right[b].mean() for b in bins], marker=".", label=name, linewidth=1.2
            )
        axis.plot([0.4, 1], [0.4, 1], color="grey", linestyle=":")
        axis.set(title=split, xlabel="confidence", xlim=(0.4, 1.01), ylim=(0.4, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of right answers")
    axes[0].legend(fontsize=7, loc="lower right")
    return svg(figure)


def _size_against_quality(variants: Mapping[str, Any], splits: list[str]) -> str:
    """PR-AUC against bytes, the area of a point being the time of an input."""
    shown = [split for split in splits if split != "valid"]
    figure, axes = _panels(len(shown))
    for axis, split in zip(axes, shown, strict=True):
        for name, entry in variants.items():
            quality = entry["metrics"][split]["pr_auc"]
            if quality is None:
                continue
            axis.scatter(entry["bytes"], quality, s=12 + entry["latency_us"] ** 0.5, alpha=0.7)
            axis.annotate(name, (entry["bytes"], quality), fontsize=7, xytext=(3, 4), textcoords="offset points")
        axis.set(title=split, xlabel="bytes", xscale="log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PR-AUC")
    return svg(figure)
