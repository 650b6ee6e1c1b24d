"""Stage drift: Evidently's report of the future split against the release's reference.

The reference is in the release (``reference.npz``); the future is what was received after ``ingest.until``.
Evidently gets descriptors and scores, never an input, so its page cannot show one. Methods and thresholds
are named in ``params.yaml``: Evidently's defaults change with the number of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from pydantic import Field

from service.release import Release
from tasks.files import atomic_write, write_json
from tasks.page import render
from tasks.release.drift_reference import drift_reference
from tasks.stage import Paths, Settings, run

TOO_FEW = Path(__file__).with_name("too_few.html.j2")
"""The page where nothing was compared; otherwise Evidently writes the page, with its own scripts and fonts."""


class Drift(Settings):
    method: Literal["wasserstein", "jensenshannon", "psi"]
    """Distance between the two distributions of a column (Wasserstein's is in standard deviations of the reference)."""
    threshold: float = Field(gt=0)
    """Distance at or above which a column counts as drifted."""
    share: float = Field(gt=0, le=1)
    """Share of drifted columns at or above which the data set counts as drifted."""
    minimum: int = Field(ge=1)
    """Fewer rows than this are not compared: below some 500 such distances are mostly noise."""


def observed(arrays: dict[str, npt.NDArray[Any]], labels: list[str]) -> pd.DataFrame:
    """The monitored columns: each descriptor, and the score of each label but the first."""
    frame = pd.DataFrame(arrays["descriptors"], columns=arrays["names"].tolist())
    for number, label in enumerate(labels[1:], start=1):
        frame[f"score of {label}"] = arrays["probabilities"][:, number]
    return frame


def compare(reference: pd.DataFrame, current: pd.DataFrame, settings: Drift) -> Any:
    """Evidently's snapshot of ``current`` against ``reference``, with its tests."""
    columns = list(reference.columns)
    definition = DataDefinition(numerical_columns=columns)
    preset = DataDriftPreset(
        columns=columns, num_method=settings.method, num_threshold=settings.threshold, drift_share=settings.share
    )
    return Report([preset], include_tests=True).run(
        Dataset.from_pandas(current, data_definition=definition), Dataset.from_pandas(reference, data_definition=definition)
    )


def distances(snapshot: Any) -> dict[str, float]:
    """The distance of each column, from Evidently's snapshot."""
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }


def drifted(distance_of: dict[str, float], threshold: float) -> list[str]:
    """The columns whose distance reaches ``threshold``, by name."""
    return sorted(column for column, distance in distance_of.items() if distance >= threshold)


def drift(settings: Drift, paths: Paths) -> None:
    """Compare the future split with the release's reference, on descriptors and scores."""
    release = Release(paths.release)
    rows = pd.read_parquet(paths.prepared)
    future = rows[rows.split == "future"]
    with np.load(paths.release / "reference.npz") as arrays:
        reference = observed(dict(arrays), release.labels)
    if len(future) < settings.minimum:
        report: dict[str, Any] = {"reference": len(reference), "future": len(future), "compared": False}
        page = render(TOO_FEW, future=len(future), minimum=settings.minimum)
    else:
        current = observed(drift_reference(release.serving, release.model, future, release.temperature), release.labels)
        snapshot = compare(reference, current, settings)
        distance_of = distances(snapshot)
        columns = drifted(distance_of, settings.threshold)
        report = {
            "reference": len(reference),
            "future": len(future),
            "compared": True,
            "distances": {name: round(distance, 6) for name, distance in distance_of.items()},
            "drifted": {"columns": columns, "share": round(len(columns) / len(distance_of), 6)},
        }
        page = snapshot.get_html_str(as_iframe=False)
    write_json(paths.report("drift.json"), report)
    with atomic_write(paths.report("drift.html")) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"drifted: {', '.join(report['drifted']['columns']) or 'nothing'}" if report["compared"] else "too few to compare")


if __name__ == "__main__":
    run(drift, Drift)
