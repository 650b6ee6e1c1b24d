"""Tables of other people, brought as README says: routing mail, telling languages apart, dated entries by section."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from service.release import Release
from tests.project import SMALL, Project
from tests.real_tables import languages, mailing_lists, sections

STAGES = """import runpy, sys
names, sys.argv[1:] = sys.argv[1:], []
for name in names: runpy.run_module(name, run_name='__main__', alter_sys=True)"""
"""The commands of the graph in its order, in one process: that saves their start, which is most of so small a run."""

TABLES = {"mailing_lists": mailing_lists, "languages": languages, "sections": sections}


@pytest.fixture(scope="module", params=TABLES)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Project:
    if request.param == "sections" and not shutil.which("dpkg-query"):
        pytest.skip("no Debian, no changelogs of its packages")
    frame: pd.DataFrame = TABLES[request.param]()
    dated = "received" in frame
    made = Project(tmp_path_factory.mktemp(request.param))
    frame.to_csv(made.folder / "data/table.csv", index=False)
    columns = {name: name if name in frame else None for name in ("id", "received", "source", "label", "subject", "text")}
    until = frame.received.sort_values().iloc[round(0.9 * len(frame))] if dated else None
    made.set(
        **{name: block for name, block in SMALL.items() if name != "validate"}
        | {
            "ingest": {"source": "table", "path": "data/table.csv", "until": until, "columns": columns},
            "prepare": {"positive": None},
            "train": SMALL["train"] | {"model": str(tiny_teacher), "learning_rate": 1e-3, "frozen_layers": None},
            "evaluate": SMALL["evaluate"] | {"slices": {}},
        }
    )  # fmt: skip
    commands = re.findall(r"cmd: .*python -m (\S+)", (made.root / "dvc.yaml").read_text(encoding="utf-8"))
    made.run("python -m tasks.data.ingest && python -m tasks.data.validate --propose --write")
    made.run(f'python -c "{STAGES}" {" ".join(commands[1:])}')
    return made


def read(project: Project, name: str) -> Any:
    return json.loads((project.folder / name).read_text(encoding="utf-8"))


def test_a_table_ends_with_a_release_that_says_why_it_is_the_one(project: Project) -> None:
    candidates = read(project, "release/card.json")["candidates"]
    assert next(c["variant"] for c in candidates if c["good"]) == read(project, "release/card.json")["variant"]
    assert candidates[-1]["reason"] == "teacher-onnx is the teacher itself", "so there is always a release"
    measured = [c for c in candidates[:-1] if c["interval"] is not None]
    assert [c["variant"] for c in measured][:3] == ["student-quantized", "student-pruned", "student"]
    assert all(c["reason"].startswith("PR-AUC on valid ") and len(c["interval"]) == 2 for c in measured)
    left = [c["reason"] for c in candidates[:-1] if c not in measured]
    assert left in ([], ["not measured: 2 before it are good enough"])


def test_every_split_has_every_figure_with_its_interval(project: Project) -> None:
    report = read(project, "reports/evaluation.json")
    dated = "received" in pd.read_csv(project.folder / "data/table.csv")
    splits = {"valid", "test", "golden"} | ({"future"} if dated else set())
    assert set(report["splits"]) == splits
    for entry in report["variants"].values():
        assert set(entry["intervals"]) == splits
        for split in splits:
            low, high = entry["intervals"][split]["pr_auc"]
            assert low <= entry["metrics"][split]["pr_auc"] <= high
    assert report["variants"]["student-quantized"]["metrics"]["test"]["pr_auc"] > 0.5, (
        "macro average; chance is an eighth or less"
    )


def test_the_release_answers_with_labels_of_the_table(project: Project) -> None:
    frame = pd.read_csv(project.folder / "data/table.csv")
    answers = Release(project.folder / "release").answer(list(frame.text))
    assert {answer.label for answer in answers} <= set(frame.label)
    assert np.mean([answer.label == label for answer, label in zip(answers, frame.label, strict=True)]) > 0.5
