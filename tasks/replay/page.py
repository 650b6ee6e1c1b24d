"""The replay report as one HTML page with inline SVG plots: the models' metrics, and the monitor's signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib import pyplot
from matplotlib.axes import Axes

from tasks.release.report import svg
from tasks.replay.periods import MODELS

PAGE = Path(__file__).with_name("replay.html.j2")
COLOURS = {"frozen": "#8a8a8a", "recalibrated": "#2471a3", "restilled": "#c0392b"}
CHANGE_STYLES = {"promoted": ("#27ae60", "--"), "rolled back": ("#c0392b", "-.")}
METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "false_positive_rate": "false-positive rate",
    "miss_rate": "miss rate",
}
"""Titles; a report holds those of its kind of labels."""
COUNTS = {"wrong": "wrong", "false_positives": "false positives", "missed": "missed"}


def replay_page(report: Mapping[str, Any]) -> str:
    """The report of ``flows.replay`` as HTML."""
    page = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    plots = {"By period": draw_periods(report)}
    if report["windows"]:
        plots["What the monitor saw"] = draw_signals(report["windows"])
    first = next(iter(report["totals"].values()))[MODELS[0]]
    return page.render(
        **report,
        plots=plots,
        metrics=metrics_of(report),
        counts={name: title for name, title in COUNTS.items() if name in first},
        models=list(COLOURS),
        number=_number,
        interval=_interval,
    )


def metrics_of(report: Mapping[str, Any]) -> dict[str, str]:
    """By name, the titles of the metrics that the report holds."""
    return {name: title for name, title in METRICS.items() if name in report["periods"][0][MODELS[0]]}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:+.3f} to {pair[1]:+.3f}"


def draw_periods(report: Mapping[str, Any]) -> str:
    """Each metric of the models by period, with bars for the inputs; vertical lines mark changes: dashed for a promotion,
    dash-dotted for a rollback, dotted for a rejection. Grey names mark where a change of the inputs begins."""
    periods, metrics = report["periods"], metrics_of(report)
    positions = np.arange(len(periods))
    heights = [3] * len(metrics) + [1.5]
    figure, axes = pyplot.subplots(len(heights), 1, figsize=(9, sum(heights) * 0.8 + 1), sharex=True, height_ratios=heights)
    for axis, (name, title) in zip(axes, metrics.items(), strict=False):
        for model, colour in COLOURS.items():
            values = [np.nan if period[model][name] is None else period[model][name] for period in periods]
            axis.plot(positions, values, marker="o", markersize=3, linewidth=1.5, color=colour, label=model)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        _mark_changes(axis, report)
    axes[0].legend(fontsize=8, loc="lower left")
    _draw_inputs(axes[-1], report)
    axes[-1].set_xticks(positions, [period["period"] for period in periods], rotation=60, ha="right", fontsize=7)
    for axis in axes:
        axis.grid(alpha=0.25)
    return svg(figure)


def _draw_inputs(axis: Axes, report: Mapping[str, Any]) -> None:
    """Bars for the inputs of each period, the positive ones in another colour."""
    periods = report["periods"]
    positive = np.array([period["positive"] for period in periods])
    others = np.array([period["inputs"] for period in periods]) - positive
    axis.bar(range(len(periods)), others, color="#d5d8dc", label="other")
    if report["positive"] is not None:
        axis.bar(range(len(periods)), positive, bottom=others, color="#5d6d7e", label=report["positive"])
        axis.legend(fontsize=8)
    for begins in report["begins"]:
        axis.annotate(
            begins["change"], (begins["place"] - 0.4, 1), xycoords=("data", "axes fraction"), fontsize=7, color="#555", va="top"
        )
        axis.axvline(begins["place"] - 0.5, color="#555", linewidth=1)
    axis.set_ylabel("inputs")


def _mark_changes(axis: Axes, report: Mapping[str, Any]) -> None:
    for change in report["changes"]:
        colour, style = CHANGE_STYLES.get(change["outcome"], ("#8a8a8a", ":"))
        axis.axvline(change["place"], color=colour, linestyle=style, linewidth=1)


def draw_signals(windows: Sequence[Mapping[str, Any]]) -> str:
    """Heatmap of -log10 of the p-values, one row per signal, one column per window."""
    names = sorted({name for window in windows for name in window["surprise"]})
    table = np.array([[window["surprise"].get(name, np.nan) for window in windows] for name in names], dtype=float)
    figure, axis = pyplot.subplots(figsize=(9, 0.28 * len(names) + 1.6))
    image = axis.imshow(np.clip(table, 0, 10), aspect="auto", cmap="magma_r", interpolation="nearest")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xlabel("window")
    for position, window in enumerate(windows):
        if window["action"] not in ("none",):
            axis.text(position, -0.8, window["action"][0].upper(), ha="center", fontsize=7, color="#c0392b")
    figure.colorbar(image, ax=axis, label="-log10 p")
    return svg(figure)
