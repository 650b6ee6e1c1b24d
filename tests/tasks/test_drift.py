"""tasks/monitor/drift.py: a moved world is seen, an unmoved one is not, and no text is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from service.kinds import serving_class
from service.kinds.text_classification.scorer import Student
from tasks.files import read_json
from tasks.monitor.drift import Drift, drift
from tasks.release.package import drift_reference, seal
from tasks.stage import Paths
from tests.conftest import KIND, made_prepared, made_release
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["drift"]


@pytest.fixture
def paths(students: tuple[Path, Path], tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    made_release(students[1], paths.release)
    reference = made_prepared(["ham", "spam"], 1500, seed=7)
    serving = serving_class(KIND)(read_json(paths.release / "settings.json"))
    np.savez(paths.release / "reference.npz", **drift_reference(serving, Student(students[1]), reference, 1.0))
    seal(paths.release)
    return paths


def judged(paths: Paths, future: pd.DataFrame, **changes: Any) -> dict[str, Any]:
    future.assign(split="future").to_parquet(paths.prepared)
    drift(Drift.model_validate(PARAMS | changes), paths)
    report: dict[str, Any] = read_json(paths.report("drift.json"))
    return report


def test_the_same_world_has_not_moved(paths: Paths) -> None:
    report = judged(paths, made_prepared(["ham", "spam"], 1500, seed=8))
    assert report["compared"]
    assert report["drifted"]["share"] < PARAMS["share"]


def test_a_world_of_shouting_links_has_moved_and_its_page_shows_no_text(paths: Paths) -> None:
    moved = made_prepared(["ham", "spam"], 1500, seed=8)
    moved["raw"] = [f"{text.upper()} PLANTEDMARKER http://x.example/{number} 12345" for number, text in enumerate(moved.raw)]
    report = judged(paths, moved)
    assert {"capital_share", "links", "digit_share"} <= set(report["drifted"]["columns"])
    page = paths.report("drift.html").read_text()
    assert len(page) > 100_000
    assert "PLANTEDMARKER" not in page


def test_too_few_rows_are_not_compared(paths: Paths) -> None:
    report = judged(paths, made_prepared(["ham", "spam"], 60, seed=8))
    assert report == {"compared": False, "future": 60, "reference": 1500}
    assert "drift.minimum is 500" in paths.report("drift.html").read_text()
