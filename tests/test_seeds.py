"""benchmarks/seeds.py: which stages run, and what the figures are made of; not what they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from benchmarks import seeds
from benchmarks.seed_folder import LOGITS, Folder, Project, read
from benchmarks.seed_path import due, keys, path_inputs, read_path, with_seed
from tasks.files import write_json
from tasks.kinds.text_classification.model import Train
from tasks.release.evaluate import Evaluate
from tasks.stage import StageError, read_settings
from tests.conftest import KIND, made_prepared
from tests.imports import MAIL, ROOT

PARAMS: dict[str, Any] = yaml.safe_load((MAIL / "params.yaml").read_text())
SHRINK = {
    "cmd": "python -m tasks.compress.shrink",
    "deps": ["data/prepared.parquet", "models/student-pruned"],
    "outs": [{"models/student-shrunk": {"persist": True}}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workload that has been run: its graph and code, made data, a baseline."""
    root = tmp_path / "workloads/mail"
    root.mkdir(parents=True)
    shutil.copy(MAIL / "params.yaml", root)
    for name in ("dvc.yaml", "offline.env"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("service", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data").mkdir()
    (root / "models/baseline").mkdir(parents=True)
    made_prepared(["ham", "spam"], 70).to_parquet(root / "data/prepared.parquet")
    write_json(root / "data/schema.json", {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam"})
    return root


def names(steps: Any) -> list[str]:
    return [step.name for step in steps]


def with_shrink(root: Path) -> dict[str, Any]:
    """Put a stage between prune and quantize, into the graph and the parameters."""
    graph = yaml.safe_load((root.parents[1] / "dvc.yaml").read_text())
    stages: dict[str, Any] = {}
    for name, stage in graph["stages"].items():
        stages |= {"shrink": SHRINK, name: stage} if name == "quantize" else {name: stage}
    (root.parents[1] / "dvc.yaml").write_text(yaml.safe_dump(graph | {"stages": stages}, sort_keys=False))
    return PARAMS | {"shrink": {"share": 0.5, "seed": 1}, "quantize": PARAMS["quantize"] | {"parent": "student-shrunk"}}


def test_the_path_is_that_of_the_graph_without_what_it_does_not_need() -> None:
    path = read_path(MAIL, PARAMS)
    assert {"train", "distill", "quantize"} <= set(names(path))
    assert not {"ingest", "prepare", "baseline", "export", "evaluate", "package"} & set(names(path))
    assert names(path)[0] == "train" and names(path)[-1] == "quantize"
    assert {"data/prepared.parquet", "data/schema.json"} <= set(path_inputs(path))
    assert path[0].module == "tasks.model.train" and path[0].models == ["teacher"]
    assert path[-1].models == ["student-quantized"]


def test_a_new_stage_between_is_picked_up_where_quantize_stands_behind_it(root: Path) -> None:
    params = with_shrink(root)
    path = read_path(root, params)
    assert names(path)[-4:] == ["distill", "prune", "shrink", "quantize"]
    without = read_path(root, params | {"quantize": PARAMS["quantize"] | {"parent": "student"}})
    assert names(without)[-2:] == ["distill", "quantize"]


def test_a_graph_without_such_a_path_is_said_in_a_sentence(root: Path) -> None:
    (root.parents[1] / "dvc.yaml").write_text("stages: {train: {cmd: python -m x}, quantize: {cmd: python -m y}}")
    with pytest.raises(StageError, match="no path leads from train to quantize"):
        read_path(root, PARAMS)
    (root.parents[1] / "dvc.yaml").unlink()
    with pytest.raises(StageError, match=r"dvc\.yaml cannot be read"):
        read_path(root, PARAMS)


def test_every_seed_on_the_path_is_set_and_no_other(root: Path) -> None:
    params = with_shrink(root)
    found = with_seed(params, read_path(root, params), 7)
    assert [found[name]["seed"] for name in ("train", "distill", "shrink", "quantize")] == [7, 7, 7, 7]
    assert "seed" not in found["prune"], "it goes on with the student's"
    for name in ("evaluate", "package", "gate"):
        assert found[name] == params[name]
    assert params["train"]["seed"] == PARAMS["train"]["seed"], "the project's own parameters stay"


def changed(root: Path, **blocks: Any) -> set[str]:
    """Stages whose key is another where these parameters are others."""
    path = read_path(root, PARAMS)
    before = keys(path, PARAMS, root)
    after = keys(path, PARAMS | {name: PARAMS[name] | block for name, block in blocks.items()}, root)
    return {name for name in before if before[name] != after[name]}


def test_a_changed_parameter_changes_its_stage_and_those_behind_it(root: Path) -> None:
    everything = set(names(read_path(root, PARAMS)))
    assert changed(root, train={"seed": 9}) == everything
    assert changed(root, distill={"epochs": 99}) == everything - {"train"}
    assert changed(root, quantize={"per_channel": False}) == {"quantize"}
    assert changed(root, evaluate={"seed": 9}) == set()


def test_changed_data_changes_all_and_changed_code_all_but_the_teacher(root: Path) -> None:
    path = read_path(root, PARAMS)
    before = keys(path, PARAMS, root)
    (root.parents[1] / "tasks/stage.py").write_text("# other")  # every stage imports it
    after = keys(path, PARAMS, root)
    assert {name for name in before if before[name] != after[name]} == set(names(path)) - {"train"}
    made_prepared(["ham", "spam"], 71).to_parquet(root / "data/prepared.parquet")
    assert not set(keys(path, PARAMS, root).items()) & set(after.items())


def test_due_is_what_changed_and_what_is_missing_for_it() -> None:
    path = read_path(MAIL, PARAMS)
    wanted = {name: f"key of {name}" for name in names(path)}
    there = {file for step in path for file in (*step.deps, *step.outs)}
    ours = {"models/student", "models/student-quantized"}
    assert due(path, wanted, wanted, there, ours) == []
    assert due(path, wanted, {}, set(), ours) == path
    assert names(due(path, wanted, wanted | {"quantize": "other"}, there, ours)) == ["quantize"]
    assert names(due(path, wanted, wanted, there - {"models/student-quantized"}, ours)) == ["quantize"]
    assert due(path, wanted, wanted, there - {"models/teacher", "data/logits.npz"}, ours) == [], "nobody asks for them"
    assert names(due(path, wanted, wanted, there - {"models/teacher"}, ours | {"models/teacher"})) == ["train"]
    for missing in ("data/logits.npz", "models/teacher"):
        again = names(due(path, wanted, wanted | {"distill": "other"}, there - {missing}, ours))
        assert again[:2] == ["train", "distill"]


def finished(project: Project, home: Path, seed: int) -> Folder:
    """A seed's folder as a whole run leaves it, the models empty."""
    folder = Folder(project, home, seed)
    for step in project.path:
        for out in step.outs:
            (folder.root / out).mkdir(parents=True)  # that it stands there is what counts
    write_json(folder.root / "done.json", folder.keys | {LOGITS: folder.keys["train"]})
    return Folder(project, home, seed)


def change_params(root: Path, **blocks: Any) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(params | {name: params[name] | block for name, block in blocks.items()}))


def test_a_whole_seed_is_not_run_again_and_another_student_needs_no_other_teacher(root: Path) -> None:
    home = root / "var/seeds"
    everything = names(read(root).path)
    assert names(Folder(read(root), home, 3).todo()) == everything
    folder = finished(read(root), home, 3)
    assert folder.todo() == []
    assert names(Folder(read(root), home, 4).todo()) == everything, "another seed is another folder"
    change_params(root, distill={"temperature": 9.0})
    assert names(Folder(read(root), home, 3).todo()) == everything[1:]
    change_params(root, distill={"temperature": PARAMS["distill"]["temperature"]})
    folder.drop_teacher()
    assert Folder(read(root), home, 3).todo() == [], "its logits are known"
    change_params(root, train={"epochs": 99})
    assert names(Folder(read(root), home, 3).todo()) == everything


def test_a_seed_s_folder_holds_the_data_and_valid_parameters_of_its_own(root: Path) -> None:
    folder = Folder(read(root), root / "var/seeds", 3)
    for _ in range(2):  # a second run finds the links of the first
        folder.prepare()
    assert (folder.root / "data/prepared.parquet").samefile(root / "data/prepared.parquet")
    assert read_settings(Train, "train", yaml.safe_load((folder.root / "params.yaml").read_text())).seed == 3


def test_a_stage_that_fails_is_due_again_and_says_where_to_look(root: Path) -> None:
    folder = finished(read(root), root / "var/seeds", 3)
    folder.prepare()
    (folder.root / "params.yaml").write_text("nonsense")
    with pytest.raises(StageError, match=r"tasks\.compress\.quantize ended with 1: quantize: params\.yaml.*stages\.log"):
        folder.run(folder.project.path[-1])
    assert names(Folder(read(root), root / "var/seeds", 3).todo()) == ["quantize"]


@pytest.mark.parametrize("values", [[0.9, 0.95], [0.99, 0.98, 0.97, 0.985, 0.991]])
def test_the_interval_is_that_of_t(values: list[float]) -> None:
    found = seeds.mean_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((np.mean(values), low, high))


def test_one_seed_has_no_interval() -> None:
    assert seeds.mean_interval([0.9]) == {"mean": 0.9, "low": None, "high": None}


def entry(teacher: float, student: float | None) -> dict[str, Any]:
    return {
        name: {split: {"pr_auc": value, "f1": value} for split in ("valid", "test")}
        for name, value in (("teacher", teacher), ("student", student))
    }


def test_what_a_student_kept_is_of_its_own_teacher() -> None:
    found = seeds.summary({"1": entry(0.8, 0.4), "2": entry(0.5, 0.5)}, "teacher")
    assert found["test"]["pr_auc"]["student kept"]["mean"] == pytest.approx(0.75)
    assert found["test"]["f1"]["teacher"]["mean"] == pytest.approx(0.65)
    assert "teacher kept" not in found["test"]["f1"]


def test_a_figure_that_one_seed_lacks_has_no_mean() -> None:
    found = seeds.summary({"1": entry(0.8, None), "2": entry(0.5, 0.5)}, "teacher")
    assert found["test"]["pr_auc"]["student"] is None and found["test"]["pr_auc"]["student kept"] is None
    assert found["test"]["pr_auc"]["teacher"] is not None


def report(*entries: dict[str, Any]) -> dict[str, Any]:
    found = {str(number + 1): one for number, one in enumerate(entries)}
    baseline = {split: {"pr_auc": 0.7, "f1": 0.6} for split in ("valid", "test")}
    return {"teacher": "teacher", "seeds": found, "mean": seeds.summary(found, "teacher"), "baseline": baseline}


def cells(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return rows


def test_the_tables_hold_every_seed_and_their_mean_with_its_interval() -> None:
    made = report(entry(0.8, 0.4), entry(0.6, 0.6))
    means = cells(seeds.table(made))
    assert means[0] == ["figure", "split", "baseline", "teacher", "student", "student kept"]
    assert means[2][:4] == ["PR-AUC", "valid", "0.7000", "0.7000 (-0.5706 to 1.9706)"]  # t of one degree: 12.706
    assert len(means) == 2 + 4
    each = cells(seeds.seed_table(made))
    assert each[2] == ["PR-AUC", "valid", "1", "0.8000", "0.4000", "0.5000"]
    assert len(each) == 2 + 8
    assert cells(seeds.table(report(entry(0.8, None))))[2][3:] == ["0.8000", "", ""]


def test_the_threshold_is_chosen_on_valid_alone() -> None:
    rows = made_prepared(["ham", "spam"], 700)
    settings = read_settings(Evaluate, "evaluate", PARAMS)
    scores = np.where(rows.label_id == 1, 1.0, -1.0) + np.where(rows.split == "valid", 5.0, 0.0)
    logits = np.stack([-scores, scores], axis=1).astype(np.float32)
    found = seeds.judge(logits, rows, 1, settings)
    assert set(found) == {"valid", "test", "golden", "future"}
    assert found["valid"] == {"pr_auc": 1.0, "f1": 1.0}
    assert found["test"]["pr_auc"] == 1.0
    assert found["test"]["f1"] == 0.0, "above the threshold of valid is no message of test"


def test_without_data_one_line_says_what_makes_it(root: Path) -> None:
    (root / "data/schema.json").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.seeds"],
        cwd=root, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "data/schema.json is missing: `make run`" in done.stderr
