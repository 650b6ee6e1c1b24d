"""Evidently's drift report of the newest windows, on descriptors and scores, for people to read.

Written as HTML and JSON, and stored as a run in a workspace that ``evidently ui --workspace`` opens. Evidently gets numbers
only. Its methods and thresholds are named in ``params.yaml``, and no decision depends on them.
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

from tasks.files import atomic_write, write_json
from tasks.monitor.drift import Drift, compare, distances, drifted, observed
from tasks.monitor.reference import stored_reference
from tasks.monitor.sample import Sample, merge
from tasks.monitor.settings import Monitor, Report
from tasks.monitor.state import State, TrafficWindow
from tasks.monitor.window_records import WindowCache
from tasks.stage import Paths, StageError

RUN = "72657374-696c-7000-8000-"
"""Prefix of our run ids; the rest is the window's number."""


@dataclass(frozen=True)
class Comparison:
    """The data that Evidently compares: numbers only."""

    reference: Mapping[str, Any]
    """The arrays of a release's ``reference.npz``."""
    current: Sample
    labels: list[str]


def report_window(settings: Monitor, state: State, paths: Paths, window: TrafficWindow) -> Path | None:
    """Report on ``window`` merged with the windows of its release just before it; the path of the HTML, next to the JSON.

    The run in the workspace is named after the window; reporting is idempotent. None where there are no answers, or where
    the release is not in the store.
    """
    try:
        reference_data = stored_reference(paths.store, window.plan.release)
    except StageError:  # the decision about the window reports it already
        return None
    earlier = state.past(window.number, settings.report.windows - 1)
    numbers = [other.number for other in earlier if other.release == window.plan.release]
    cache = WindowCache(paths, settings.windows.count, 1)
    samples = [cache.load(number, state).sample(reference_data) for number in (*numbers, window.number)]
    current = merge([sample for sample in samples if len(sample)] or samples[-1:])
    if not len(current):
        return None
    snapshot = evidently_snapshot(settings.report, Comparison(reference_data.arrays, current, reference_data.labels))
    return write_report(settings.report, window.number, snapshot, paths)


def write_report(settings: Report, number: int, snapshot: Any, paths: Paths) -> Path:
    """Evidently's ``snapshot`` as ``reports/window-NUMBER.html`` and ``.json``, and as a run of that name in its workspace."""
    folder = paths.monitor / "reports"
    page = folder / f"window-{number:06d}.html"
    with atomic_write(page) as temporary:
        temporary.write_text(snapshot.get_html_str(as_iframe=False), encoding="utf-8")
    distance_of = distances(snapshot)
    columns = drifted(distance_of, settings.threshold)
    method = {"method": settings.method, "threshold": settings.threshold}
    write_json(
        page.with_suffix(".json"),
        {"window": page.stem, **method, "distances": {c: round(d, 6) for c, d in distance_of.items()}, "drifted": columns},
    )
    snapshot.set_name(page.stem)
    write_run(paths.evidently, paths.name, number, snapshot, settings.keep)
    _delete_old_reports(folder, settings.keep)
    return page


def evidently_snapshot(settings: Report, comparison: Comparison) -> Any:
    """Evidently's comparison of descriptors and scores with the reference."""
    reference, current = dict(comparison.reference), comparison.current
    arrays = {"names": reference["names"], "descriptors": current.descriptors, "probabilities": current.probabilities}
    drift_settings = Drift(method=settings.method, threshold=settings.threshold, share=settings.share, minimum=1)
    # Evidently also correlates the columns, and a constant column makes it divide by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        return compare(observed(reference, comparison.labels), observed(arrays, comparison.labels), drift_settings)


def write_run(workspace: Path, name: str, number: int, snapshot: Any, keep: int) -> None:
    """Store the snapshot in the workspace's project ``name``, as the run of window ``number``.

    The id derives from the number, so writing is idempotent. The project is the monitor's own: all but its newest windows are
    deleted. Evidently's ``Workspace`` would load every run, so its file storage is used directly.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    files = LocalState(str(workspace))
    projects = [project for project in map(files.read_project, files.list_projects()) if project.name == name]
    project = projects[0] if projects else files.write_project(ProjectModel(name=name, description="Windows of the traffic"))
    files.write_snapshot(project.id, UUID(f"{RUN}{number:012x}"), snapshot.to_snapshot_model())
    runs = sorted(map(str, files.list_snapshots(project.id)))
    newest = [run for run in runs if run.startswith(RUN)][-keep:]
    for run in runs:
        if run not in newest:
            files.delete_snapshot(project.id, run)


def _delete_old_reports(folder: Path, keep: int) -> None:
    """Delete the reports of the oldest windows; their names sort by number."""
    for suffix in (".json", ".html"):
        for old in sorted(folder.glob(f"window-*{suffix}"))[:-keep]:
            old.unlink(missing_ok=True)
