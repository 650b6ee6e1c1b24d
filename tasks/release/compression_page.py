"""The compression report as a page that opens anywhere: one HTML file, plots as inline SVG, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes

from tasks.page import number, percent, render
from tasks.release.disagreement import RIGHT
from tasks.release.fronts import MEASURES, QUALITY
from tasks.release.report import NAMES, svg

PAGE = Path(__file__).with_name("compression.html.j2")
AXES = {"bytes": "bytes", "latency_us": "µs an input"}


def compression_page(
    report: Mapping[str, Any], shown: Mapping[str, Sequence[Mapping[str, Any]]], plots: Mapping[str, str]
) -> str:
    """The whole report as HTML, with the disagreements ``shown`` on each split."""
    return render(
        PAGE,
        **report,
        shown=shown,
        plots=plots,
        metrics={metric: NAMES[metric] for metric in QUALITY},
        descriptors=next((list(one["descriptors"]) for every in shown.values() for one in every), []),
        sides=RIGHT,
        described=lambda name, value: f"{value:.3f}" if name.endswith("_share") else f"{value:,.0f}",
        number=number,
        percent=percent,
        signed=lambda value: "-" if value is None else f"{value:+.4f}",
        between=lambda pair: "" if pair is None else f"{pair[0]:+.4f} to {pair[1]:+.4f}",
        places=lambda costs: ", ".join(MEASURES[cost] for cost in costs) or "-",
    )


def draw_fronts(models: Mapping[str, Any], splits: Sequence[str], metric: str) -> str:
    """Quality against size (above) and time (below) on each split; the models of a front are ringed and joined."""
    figure, grid = pyplot.subplots(len(MEASURES), len(splits), figsize=(3.7 * len(splits), 6.2), squeeze=False, sharey="col")
    colours = {name: colormaps["tab20"](place % 20) for place, name in enumerate(models)}
    for axes, cost in zip(grid, MEASURES, strict=True):
        for axis, split in zip(axes, splits, strict=True):
            known = {name: entry for name, entry in models.items() if entry["metrics"][split][metric] is not None}
            for name, entry in known.items():
                marker = "^" if entry["rival"] else "o"
                axis.scatter(
                    entry[cost],
                    entry["metrics"][split][metric],
                    marker=marker,
                    s=34,
                    alpha=0.85,
                    color=[colours[name]],
                    label=name,
                )
            edge = {name: entry for name, entry in known.items() if cost in entry["front"][split][metric]}
            _join(axis, [(entry[cost], entry["metrics"][split][metric]) for entry in edge.values()])
            axis.set(title=split, xlabel=AXES[cost], xscale="log")
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(NAMES[metric])
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=5, fontsize=8, frameon=False)
    return svg(figure)


def _join(axis: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Ring the points of a front and draw the stairs below which everything is dominated."""
    if points:
        costs, qualities = zip(*sorted(points), strict=True)
        axis.step(costs, qualities, where="post", color="#888", linestyle=":", linewidth=1, zorder=0)
        axis.scatter(costs, qualities, s=110, facecolors="none", edgecolors="#222", linewidths=1)
