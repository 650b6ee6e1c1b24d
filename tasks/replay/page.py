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

PAGE = Path(__file__).with_name("replay.html.j2")
COLOURS = {"frozen": "#8a8a8a", "recalibrated": "#2471a3", "restilled": "#c0392b"}
CHANGE_STYLES = {"promoted": ("#27ae60", "--"), "rolled back": ("#c0392b", "-.")}
METRICS = {"f1": "F1", "false_positive_rate": "false-positive rate", "miss_rate": "share let through"}


def replay_page(report: Mapping[str, Any]) -> str:
    """The report of ``flows.replay`` as HTML."""
    page = Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    plots = {"Week by week": draw_weeks(report)}
    if report["windows"]:
        plots["What the monitor saw"] = draw_signals(report["windows"])
    return page.render(**report, plots=plots, metrics=METRICS, models=list(COLOURS), number=_number, interval=_interval)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:+.3f} to {pair[1]:+.3f}"


def draw_weeks(report: Mapping[str, Any]) -> str:
    """Each metric of the models by week, with bars for the messages; vertical lines mark changes: dashed for a promotion,
    dash-dotted for a rollback, dotted for a rejection."""
    weeks = report["weeks"]
    positions = np.arange(len(weeks))
    figure, axes = pyplot.subplots(len(METRICS) + 1, 1, figsize=(9, 8.5), sharex=True, height_ratios=[3, 3, 3, 1.5])
    for axis, (name, title) in zip(axes, METRICS.items(), strict=False):
        for model, colour in COLOURS.items():
            values = [np.nan if week[model][name] is None else week[model][name] for week in weeks]
            axis.plot(positions, values, marker="o", markersize=3, linewidth=1.5, color=colour, label=model)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        _mark_changes(axis, report)
    axes[0].legend(fontsize=8, loc="lower left")
    negative = [week["messages"] - week["positive"] for week in weeks]
    axes[-1].bar(positions, negative, color="#d5d8dc", label="other")
    axes[-1].bar(positions, [week["positive"] for week in weeks], bottom=negative, color="#5d6d7e", label=report["positive"])
    axes[-1].set_ylabel("messages")
    axes[-1].legend(fontsize=8)
    axes[-1].set_xticks(positions, [week["week"] for week in weeks], rotation=60, ha="right", fontsize=7)
    for axis in axes:
        axis.grid(alpha=0.25)
    return svg(figure)


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
