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

import numpy as np
from evidently.sdk.models import ProjectModel
from evidently.ui.storage.local.base import LocalState

from tasks.monitor.drift import Drift, compare, distances, drifted, observed
from tasks.monitor.loaded import Recent
from tasks.monitor.reference import stored_reference
from tasks.monitor.sample import Sample, merge
from tasks.monitor.settings import Monitor, Report
from tasks.monitor.state import State, TrafficWindow
from tasks.stage import Paths, StageError, atomic_write, write_json

PROJECT = "restill"
RUN = "72657374-696c-7000-8000-"
"""What the ids of our runs begin with; the rest is the window's number."""


@dataclass(frozen=True)
class Comparison:
    """What is compared: numbers alone."""

    reference: Mapping[str, Any]
    """The arrays of a release's ``reference.npz``."""
    current: Sample
    labels: list[str]


def report_window(settings: Monitor, state: State, paths: Paths, window: TrafficWindow) -> Path | None:
    """Report ``window`` and those of its release just before it; the path of the HTML, the JSON beside it.

    Names a run in the workspace after the window. Done twice, it is one report. None where nothing was answered, or
    where the release is not in the store.
    """
    try:
        held = stored_reference(paths.store, window.plan.release)
    except StageError:  # the decision about the window says so already
        return None
    before = state.past(window.number, settings.report.windows - 1)
    numbers = [seen.number for seen in before if seen.release == window.plan.release]
    recent = Recent(paths, settings.windows.count, 1)
    samples = [recent.load(number, state).sample(held) for number in (*numbers, window.number)]
    current = merge([sample for sample in samples if len(sample)] or samples[-1:])
    if not len(current):
        return None
    snapshot = evidently_snapshot(settings.report, Comparison(held.arrays, current, held.labels))
    return write_report(settings.report, window.number, snapshot, paths.monitor / "reports", paths.evidently)


def write_report(settings: Report, number: int, snapshot: Any, folder: Path, workspace: Path) -> Path:
    """Evidently's ``snapshot`` as ``folder/window-NUMBER.html`` and ``.json``, and as a run of that name in ``workspace``."""
    page = folder / f"window-{number:06d}.html"
    with atomic_write(page) as temporary:
        temporary.write_text(snapshot.get_html_str(as_iframe=False), encoding="utf-8")
    found = distances(snapshot)
    columns = drifted(found, settings.threshold)
    named = {"method": settings.method, "threshold": settings.threshold}
    write_json(
        page.with_suffix(".json"),
        {"window": page.stem, **named, "distances": {c: round(d, 6) for c, d in found.items()}, "drifted": columns},
    )
    snapshot.set_name(page.stem)
    write_run(workspace, number, snapshot, settings.keep)
    _forget(folder, settings.keep)
    return page


def evidently_snapshot(settings: Report, comparison: Comparison) -> Any:
    """Evidently's comparison of descriptors and scores with the reference."""
    held, current = dict(comparison.reference), comparison.current
    now = {"names": held["names"], "descriptors": current.descriptors, "probabilities": current.probabilities}
    named = Drift(method=settings.method, threshold=settings.threshold, share=settings.share, minimum=1)
    # Evidently also correlates the columns, of which one that is constant (no hidden text, all alike) divides by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        return compare(observed(held, comparison.labels), observed(now, comparison.labels), named)


def write_run(workspace: Path, number: int, snapshot: Any, keep: int) -> None:
    """Put the snapshot into the project of the workspace, as the run of the window ``number``.

    The id is made of the number: written twice, it is one run. The project is the monitor's own, and what is no newest
    window in it is removed. Evidently's ``Workspace`` would read every run to open, so its files are asked.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    files = LocalState(str(workspace))
    projects = [project for project in map(files.read_project, files.list_projects()) if project.name == PROJECT]
    project = projects[0] if projects else files.write_project(ProjectModel(name=PROJECT, description="Windows of the traffic"))
    files.write_snapshot(project.id, UUID(f"{RUN}{number:012x}"), snapshot.to_snapshot_model())
    runs = sorted(map(str, files.list_snapshots(project.id)))
    kept = [run for run in runs if run.startswith(RUN)][-keep:]
    for run in runs:
        if run not in kept:
            files.delete_snapshot(project.id, run)


def _forget(folder: Path, keep: int) -> None:
    """Remove the reports of the oldest windows; their names sort by number."""
    for suffix in (".json", ".html"):
        for old in sorted(folder.glob(f"window-*{suffix}"))[:-keep]:
            old.unlink(missing_ok=True)
