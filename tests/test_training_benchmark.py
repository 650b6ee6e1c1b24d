"""benchmarks/training.py: what is timed, and what the figures are made of; not how fast anything is."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import curves, plain_training, training
from benchmarks.curves import OURS, Clock
from benchmarks.plain_training import Plain, Task
from tasks.files import write_json
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_prepared
from tests.imports import MAIL, ROOT


def curve(*points: tuple[float, float]) -> list[dict[str, float]]:
    """Of (seconds, PR-AUC), ten batches and one second of looking between two points."""
    return [
        {"batches": 10 * (n + 1), "seconds": seconds, "looks": n + 1, "pr_auc": score}
        for n, (seconds, score) in enumerate(points)
    ]


OURS_CURVE = curve((2, 0.9), (4, 0.99), (6, 0.98))
PLAIN_CURVE = curve((5, 0.8), (10, 0.95), (15, 0.97))


def test_seconds_to_a_score_are_those_of_the_first_look_that_saw_it() -> None:
    assert curves.seconds_to(OURS_CURVE, 0.9) == 2
    assert curves.seconds_to(OURS_CURVE, 0.95) == 4
    assert curves.seconds_to(OURS_CURVE, 0.995) is None


def test_the_score_to_reach_is_one_that_every_run_reaches() -> None:
    score = curves.reached_by_all([OURS_CURVE, PLAIN_CURVE])
    assert score == pytest.approx(0.968)
    assert all(curves.seconds_to(one, score) is not None for one in (OURS_CURVE, PLAIN_CURVE))


def test_runs_are_compared_without_their_looks_and_with() -> None:
    found = curves.compare({OURS: OURS_CURVE, "Trainer": PLAIN_CURVE}, 0.97)
    assert found["Trainer"]["seconds_a_batch"] == pytest.approx(0.5)
    assert found["Trainer"]["best"] == 0.97
    assert found["Trainer"]["times"] == pytest.approx(
        {"seconds_a_batch": 2.5, "seconds": 2.5, "seconds_with_looks": 18 / 9, "to_score": 15 / 4}
    )
    assert set(found[OURS]["times"].values()) == {1.0}


def test_a_run_that_never_got_there_is_said_to_and_has_no_ratio() -> None:
    rows = curves.table(curves.compare({OURS: OURS_CURVE, "Trainer": PLAIN_CURVE}, 0.985), 0.985).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert cells[0][-2] == "s to 0.9850"
    assert cells[2] == [OURS, "30", "0.200", "1.00", "6", "1.00", "9", "1.00", "0.9900", "4", "1.00"]
    assert cells[3][-2:] == ["never", ""]
    ours_late = curves.compare({OURS: PLAIN_CURVE, "Trainer": OURS_CURVE}, 0.985)
    assert ours_late["Trainer"]["times"]["to_score"] is None


def test_the_clock_counts_looks_apart() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.look():
            time.sleep(0.1)
        clock.note(1, 0.5)
    assert clock.curve[0]["looks"] >= 0.1
    assert clock.curve[1]["looks"] >= 0.2
    assert clock.curve[1]["seconds"] < 0.1


@pytest.fixture
def project(tmp_path: Path, tiny_teacher: Path) -> Paths:
    """A project of made messages whose teacher is tiny."""
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params["train"] |= {"model": str(tiny_teacher), "window_tokens": 16, "windows": 3, "threads": 1, "patience": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    made_prepared(["ham", "spam"], 300).to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam"})
    return paths


def task(project: Paths, limit: int | None = None) -> Task:
    return training.read_task(project, limit, epochs=2, evaluate_every=0.5)


def test_ours_is_timed_at_every_look_to_the_last_batch_and_stops_at_none(project: Paths) -> None:
    found = training.fit_ours(task(project)).curve
    assert [point["batches"] for point in found] == [2, 4, 6, 8, 10]  # five batches an epoch
    assert all(point["seconds"] > 0 and 0 <= point["pr_auc"] <= 1 for point in found)
    assert all(later["seconds"] > point["seconds"] for point, later in pairwise(found))


def test_trainer_looks_where_ours_does(project: Paths) -> None:
    pytest.importorskip("accelerate")
    for plain in (Plain(16, tuned=False), Plain(48, tuned=True)):
        found = plain_training.fit_plain(task(project), plain).curve
        assert [point["batches"] for point in found] == [2, 4, 6, 8, 10]
        assert all(later["seconds"] > point["seconds"] for point, later in pairwise(found))


def test_trainer_reads_one_window_and_as_much_as_ours_reads(project: Paths) -> None:
    settings = task(project).settings
    assert plain_training.longest_input(settings) == 48  # three windows of 16
    assert plain_training.longest_input(settings.model_copy(update={"windows": 100})) == 128  # of the encoder
    assert list(training.runs(settings, 48, tuned=False)) == [OURS, "Trainer, 16 tokens", "Trainer, 48 tokens"]
    assert len(training.runs(settings, 48, tuned=True)) == 5
    assert list(training.runs(settings, 16, tuned=False)) == [OURS, "Trainer, 16 tokens"]


def test_messages_are_cut_and_keep_their_labels(project: Paths) -> None:
    few = task(project, limit=10)
    _, tokenizer = plain_training.load_encoder(few.settings.model)
    rows = plain_training.encoded(tokenizer, few.train, 16)
    assert [len(row["input_ids"]) for row in rows] == [16] * 10
    assert [row["labels"] for row in rows] == few.train.label_id.tolist()


def test_a_kept_run_counts_only_for_the_same_question(project: Paths) -> None:
    asked = task(project)
    same = training.identity(asked, project, OURS)
    assert training.identity(task(project), project, OURS) == same
    assert training.identity(asked, project, "Trainer, 16 tokens") != same
    assert training.identity(task(project, limit=50), project, OURS) != same
    assert training.identity(training.read_task(project, epochs=3, evaluate_every=0.5), project, OURS) != same
    made_prepared(["ham", "spam"], 301).to_parquet(project.prepared)
    assert training.identity(asked, project, OURS) != same


def test_what_ended_is_not_run_again(project: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def run(name: str) -> Any:
        def fit(task: Task) -> Clock:
            begun.append(name)
            if begun == ["a", "b"]:
                raise KeyboardInterrupt
            clock = Clock()
            clock.note(1, 0.5)
            return clock

        return fit

    monkeypatch.setattr(training, "runs", lambda *asked: {"a": run("a"), "b": run("b")})
    monkeypatch.setattr(training, "require_accelerate", lambda: None)
    out = tmp_path / "training.json"
    with pytest.raises(KeyboardInterrupt):
        training.measure(project, task(project), out, tuned=False)
    assert list(training.measure(project, task(project), out, tuned=False)) == ["a", "b"]
    assert begun == ["a", "b", "b"]


def test_without_accelerate_one_line_says_what_to_install(project: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(StageError, match=r"accelerate: pip install -c constraints.txt -e '\.\[bench\]'$"):
        training.measure(project, task(project), project.root / "training.json", tuned=False)


def test_one_label_has_no_ranking(project: Paths) -> None:
    with pytest.raises(StageError, match="--limit 1: valid has one label only"):
        task(project, limit=1)


def test_without_data_one_line_says_what_makes_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "make run" in done.stderr
