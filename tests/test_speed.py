"""benchmarks/speed.py: what is measured, and against what; not how fast anything is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import rival_training, speed
from benchmarks.memory import resident
from benchmarks.rivals import logarithms, preprocess
from service.kinds.text_classification.text import Normaliser
from tasks.release.teacher_comparison import fastest_teacher
from tests.imports import MAIL, ROOT

MESSAGES = ["short", "", "of some length\nin two lines", "long " * 500]
PLAIN = Normaliser((), (), 4000)


@pytest.mark.parametrize("length", [1, 200, 1_500, 10_000])
def test_texts_have_exactly_the_length_asked_for(length: int) -> None:
    texts = speed.cut_or_join(MESSAGES, length, 9)
    assert [len(text) for text in texts] == [length] * 9


def test_texts_are_messages_joined_to_the_next_or_cut() -> None:
    texts = speed.cut_or_join(MESSAGES, 40, 4)
    assert texts[0] == "short\n\nof some length\nin two lines\nlong "
    assert texts[3] == ("long " * 500)[:40]
    assert speed.cut_or_join(["a"], 5, 2) == ["a\na\na", "a\na\na"]


def model(single: float, batch: float, test: float, future: float) -> dict[str, Any]:
    return {
        "pr_auc": {"test": test, "golden": 0.99, "future": future},
        "latency_us": {"200": {"single": single, "batch": batch}},
        "bytes": 1_234_567,
        "resident": 90_000_000,
        "resident_over_numpy": 60_000_000,
    }


def fastest(models: dict[str, Any], way: str) -> str:
    return fastest_teacher(speed.as_evaluated(models, "200", way), "teacher", 0.005)


def report() -> dict[str, Any]:
    models = {
        "teacher": model(400, 300, 0.99, 0.95),
        "teacher-onnx": model(300, 350, 0.988, 0.9451),
        "teacher-int8": model(100, 100, 0.99, 0.94),
        "student": model(10, 5, 0.99, 0.95),
        speed.ALONE: {"pr_auc": {}, "latency_us": {"200": {"single": 2, "batch": 1}}},
    }
    against = {way: fastest(models, way) for way in ("single", "batch")}
    return {"teacher": "teacher", "models": models, "against": {"200": against}}


def test_the_measure_is_the_fastest_form_of_the_teacher_that_keeps_its_quality() -> None:
    # teacher-int8 is the fastest of all, but loses 0.01 on future.
    assert report()["against"]["200"] == {"single": "teacher-onnx", "batch": "teacher"}


def test_a_split_that_is_not_there_decides_nothing() -> None:
    models = report()["models"]
    for entry in models.values():
        entry["pr_auc"].pop("future", None)
    assert fastest(models, "single") == "teacher-int8"


def test_the_table_holds_every_model_the_fastest_first() -> None:
    lines = speed.table(report(), "200").splitlines()
    assert len({row.count("|") for row in lines}) == 1
    assert [row.split("|")[1].strip() for row in lines[2:]] == [
        speed.ALONE, "student", "teacher-int8", "teacher-onnx", "teacher",
    ]  # fmt: skip
    cells = [cell.strip() for cell in lines[3].split("|")[2:-1]]
    assert cells == ["10", "100,000", "30.0", "5", "200,000", "60.0", "1,234,567", "60", "0.9900", "0.9900", "0.9500"]
    assert lines[2].split("|")[4].strip() == ""


def test_all_models_take_turns_on_the_same_texts() -> None:
    asked: list[tuple[str, int]] = []
    answers = {name: lambda texts, name=name: asked.append((name, len(texts))) for name in "ab"}
    found = speed.latency_us(answers, PLAIN, {5: ["one"] * 3, 9: ["two"] * 3}, rounds=2)
    turn = [("a", 1)] * 3 + [("b", 1)] * 3 + [("a", 3), ("b", 3)]
    assert asked == turn * 2 * 3  # two lengths, and a round to warm up
    assert {name: {length: set(ways) for length, ways in entry.items()} for name, entry in found.items()} == {
        name: {"5": {"single", "batch"}, "9": {"single", "batch"}} for name in "ab"
    }
    assert all(taken > 0 for entry in found.values() for ways in entry.values() for taken in ways.values())


def test_a_rival_that_is_not_installed_is_named_in_one_line_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(task: rival_training.Task) -> None:
        raise ModuleNotFoundError("No module named 'fasttext'")

    def present(task: rival_training.Task) -> None:
        task.place("there", kind="fasttext")

    monkeypatch.setattr(rival_training, "FAMILIES", {"fasttext": absent, "other": present})
    task = rival_training.Task(pd.DataFrame(), pd.DataFrame(), 2, 1, "encoder", tmp_path)
    assert rival_training.fit_rivals(task) == [tmp_path / "there"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "fasttext is left out" in said[0] and "[bench]" in said[0]


def test_without_models_one_line_says_what_makes_them(tmp_path: Path) -> None:
    shutil.copy(MAIL / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "make run" in done.stderr


@pytest.mark.parametrize("made", [{}, {"variant.json": {"kind": "student"}}, {"variant.json": {"kind": "unheard of"}}])
def test_a_folder_that_is_no_model_names_what_makes_it(tmp_path: Path, made: dict[str, Any]) -> None:
    for name, content in made.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(speed.StageError, match=r"variant\.json|make run"):
        speed.load(tmp_path, 1)


def test_memory_is_that_of_a_process_of_its_own() -> None:
    assert 10e6 < resident(None, {}, "") < 200e6


def test_fasttext_reads_one_line_a_text() -> None:
    assert preprocess("Free!\nNow") == "free !  now"


def test_a_probability_of_zero_has_a_logarithm() -> None:
    assert np.isfinite(logarithms(np.array([[0.0, 1.0]]))).all()
