"""Nothing behind ingest knows that a text is mail or that there are two labels: a table of three runs the same graph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import made_table
from tests.project import SMALL, Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Path) -> Project:
    made = Project(tmp_path_factory.mktemp("three"))
    made_table(["ham", "spam", "news"], 500).rename(columns={"text": "body", "label": "topic"}).to_csv(
        made.root / "news.csv", index=False
    )
    columns = {"id": "id", "received": "received", "source": None, "label": "topic", "subject": None, "text": "body"}
    made.set(
        **SMALL
        | {
            "ingest": {"source": "table", "path": "news.csv", "until": "2020-01-18", "columns": columns},
            "validate": {
                **SMALL["validate"],
                "labels": ["ham", "news", "spam"],
                "row_rules": {
                    "received_from": "2019-01-01", "received_until": "2021-01-01", "characters_min": 1, "characters_max": 9999,
                    "replacement_share_max": 0.1,
                },
            },
            "prepare": {"positive": None},
            "train": SMALL["train"] | {"model": str(tiny_teacher), "learning_rate": 1e-3, "frozen_layers": None},
            "distill": SMALL["distill"],
            "evaluate": SMALL["evaluate"] | {"slices": {}},
        }
    )  # fmt: skip
    made.run("dvc repro")
    return made


def test_every_figure_is_there_for_three_labels(project: Project) -> None:
    report = json.loads((project.root / "reports/evaluation.json").read_text())
    assert set(report["splits"]) == {"valid", "test", "golden", "future"}
    assert set(report["splits"]["test"]) == {"ham", "news", "spam"}
    for entry in report["variants"].values():
        assert all(0 <= value <= 1 for split in entry["metrics"].values() for value in split.values())
    assert report["variants"]["student-quantized"]["metrics"]["future"]["f1"] > 0.6, "macro F1; chance is a third"


def test_the_release_answers_with_one_of_three_labels(project: Project) -> None:
    code = (
        "import json; from pathlib import Path; from service.release import Release; r = Release(Path('release'));"
        "texts = ['winner prize money offer cash deal', 'election market minister league'];"
        "print(json.dumps([vars(a) for a in r.answer(texts)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    assert [answer["label"] for answer in answers] == ["spam", "news"]
    assert all(1 / 3 <= answer["score"] <= 1 for answer in answers), "the score is that of the label answered"
