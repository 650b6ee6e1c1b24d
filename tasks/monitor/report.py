"""The report that people read: Evidently on descriptors and scores of the newest windows.

Written as HTML and JSON, and kept as a run in a workspace that ``evidently ui --workspace`` opens. Evidently is given
numbers only. Its methods and thresholds are named in ``params.yaml``, and nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from evidently.ui.workspace import Workspace

from service.store import release_folder
from tasks.monitor.drift import Drift, compare, distances, observed
from tasks.monitor.reference import load_reference
from tasks.monitor.sample import Sample, merge
from tasks.monitor.settings import Monitor, Report
from tasks.monitor.state import State, Window
from tasks.monitor.windows import load
from tasks.stage import Paths, read_json, whole, write_json

PROJECT = "restill"
INDEX = "evidently.json"


@dataclass(frozen=True)
class Comparison:
    """What is compared: numbers alone."""

    reference: Mapping[str, Any]
    """The arrays of a release's ``reference.npz``."""
    current: Sample
    labels: list[str]


def report_window(settings: Monitor, state: State, paths: Paths, window: Window) -> Path | None:
    """Report ``window`` and those of its release just before it; the path of the HTML, the JSON beside it.

    Names a run in the workspace after the window. Done twice, it is one report. None where nothing was answered.
    """
    held = load_reference(release_folder(paths.store, window.plan.release))
    before = state.past(window.number, settings.report.windows - 1)
    numbers = [seen.number for seen in before if seen.release == window.plan.release]
    windows = [*(state.window(number) for number in numbers), window]
    samples = [held.sample_of(load(paths.journal, part.plan.journal)) for part in windows]
    current = merge([sample for sample in samples if len(sample)] or samples[-1:])
    if not len(current):
        return None
    snapshot = evidently_snapshot(settings.report, Comparison(held.arrays, current, held.labels))
    return write_report(settings.report, f"window-{window.number:06d}", snapshot, paths.monitor / "reports", paths.evidently)


def write_report(settings: Report, name: str, snapshot: Any, folder: Path, workspace: Path) -> Path:
    """Evidently's ``snapshot`` as ``folder/NAME.html`` and ``.json``, and as the run NAME in ``workspace``."""
    page = folder / f"{name}.html"
    with whole(page) as temporary:
        temporary.write_text(snapshot.get_html_str(as_iframe=False), encoding="utf-8")
    found = distances(snapshot)
    drifted = sorted(column for column, distance in found.items() if distance >= settings.threshold)
    named = {"method": settings.method, "threshold": settings.threshold}
    write_json(
        page.with_suffix(".json"),
        {"window": name, **named, "distances": {c: round(d, 6) for c, d in found.items()}, "drifted": drifted},
    )
    add_run(workspace, folder / INDEX, snapshot, name, settings.keep)
    _forget(folder, settings.keep)
    return page


def evidently_snapshot(settings: Report, comparison: Comparison) -> Any:
    """Evidently's comparison of descriptors and scores with the reference."""
    held, current = dict(comparison.reference), comparison.current
    now = {"names": held["names"], "descriptors": current.descriptors, "probabilities": current.probabilities}
    named = Drift(method=settings.method, threshold=settings.threshold, share=settings.share, minimum=1)
    return compare(observed(held, comparison.labels), observed(now, comparison.labels), named)


def add_run(workspace: Path, index: Path, snapshot: Any, name: str, keep: int) -> None:
    """Put the snapshot into the project of the workspace, in place of an earlier one of that name.

    ``index`` remembers which run has which name: to ask the workspace would mean to read every run.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    opened = Workspace.create(str(workspace))
    projects = opened.search_project(PROJECT)
    project = projects[0] if projects else opened.create_project(PROJECT, description="Windows of the traffic")
    runs: dict[str, str] = read_json(index) if index.exists() else {}
    gone = [runs[name]] if name in runs else []
    runs[name] = str(opened.add_run(project.id, snapshot, name=name).id)
    gone += [runs.pop(old) for old in sorted(runs)[: max(0, len(runs) - keep)]]
    for run in gone:
        if UUID(run) in opened.list_runs(project.id):
            opened.delete_run(project.id, run)
    write_json(index, runs)


def _forget(folder: Path, keep: int) -> None:
    """Remove the reports of the oldest windows; their names sort by number."""
    for suffix in (".json", ".html"):
        for old in sorted(folder.glob(f"window-*{suffix}"))[:-keep]:
            old.unlink(missing_ok=True)
