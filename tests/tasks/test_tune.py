"""The search: its space, its front, its memory, and what it must not look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copy2
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from service.kinds.text_classification.scorer import Student
from tasks.compress.distill import distill
from tasks.compress.quantize import quantize
from tasks.compress.settings import Prune
from tasks.files import folder_bytes, write_json
from tasks.kinds.text_classification.compress import Distill, Quantize
from tasks.metrics import ranking
from tasks.stage import Paths, StageError, read_settings
from tasks.tune import studies
from tasks.tune.front import Point, Tolerances, choose, draw, front, rows
from tasks.tune.search import Search, Tune, run_trials
from tasks.tune.space import Axis, apply_point, check, edit_yaml, read_point, write_point
from tasks.tune.trial import Step
from tests.conftest import KIND, made_prepared
from tests.imports import MAIL

TEXT = (MAIL / "params.yaml").read_text()
STEPS = [Step("distill", distill, Distill), Step("quantize", quantize, Quantize)]
SETTINGS = {step.name: step.settings for step in STEPS}
NEEDS = ["data/logits.npz", "data/prepared.parquet", "data/schema.json"]
EPOCHS, RATE = "distill.bag.sgd.epochs", "distill.bag.sgd.learning_rate"
SMALL = {
    "distill.bits": 10, "distill.char_ngrams": [4], "distill.known_bits": 12, "distill.min_documents": 1,
    "distill.family": "bag", "distill.bag.bits": None, "distill.bag.hidden": 0,
    EPOCHS: 5, RATE: 0.05, "quantize.parent": "student",
    "distill.parity.mean": 0.4, "distill.parity.disagreement_rate": 0.3, "distill.parity.worst_slice": 0.5,
    "distill.parity.threshold_disagreement": 0.5, "quantize.parity.mean": 0.1, "quantize.parity.threshold_disagreement": 0.1,
    "tune.timing.inputs": 5, "tune.timing.rounds": 1,
}  # fmt: skip
"""Parameters under which a trial takes a second or two."""
RATES = {RATE: {"choices": [0.05, 1e-6]}}
"""A student that learns, and one that does not."""


def axis(**values: Any) -> Axis:
    return Axis.model_validate(values)


# --- the space ---------------------------------------------------------------------------------------------------------


def test_a_range_of_whole_numbers_gives_whole_numbers_and_choices_may_be_lists() -> None:
    space = {
        "a": axis(low=12, high=18),
        "b": axis(low=1, high=8.0, log=True),
        "c": axis(choices=[[5], [4, 6], None]),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    found = [read_point(space, study.ask({name: one.distribution for name, one in space.items()}).params) for _ in range(60)]
    assert {type(point["a"]) for point in found} == {int}
    assert {point["a"] for point in found} == set(range(12, 19))
    assert all(1 <= point["b"] <= 8 and len(repr(point["b"])) <= 6 for point in found), "four digits"
    assert np.median([point["b"] for point in found]) < 4, "in ratios, half of the values are below the root of 8"
    assert {repr(point["c"]) for point in found} == {"[5]", "[4, 6]", "None"}
    assert read_point(space, write_point(space, found[0])) == found[0]


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"distill.bits": {"low": 18, "high": 12}}, r"tune.space.distill.bits = .*low is above high"),
        ({"distill.bits": {"low": 12}}, r"tune.space.distill.bits = .*either low and high, or choices"),
        ({"distill.bits": {"low": 0, "high": 16, "log": True}}, r"tune.space.distill.bits = .*log wants a low above 0"),
        ({"distill.bits": {"low": 1, "choices": [16]}}, r"tune.space.distill.bits = .*stand alone"),
        ({"distill.bits": {"from": 1}}, r"tune.space.distill.bits.from"),
        ({"distill.bit": {"low": 12, "high": 18}}, r"tune.space.distill.bit: there is no such parameter"),
        ({"distil.bits": {"low": 12, "high": 18}}, r"tune.space.distil.bits: there is no such parameter"),
        ({"train.epochs": {"low": 1, "high": 3}}, r"tune.space.train.epochs: a trial runs distill, quantize"),
        ({"distill.bits": {"low": 12, "high": 14}}, r"tune.space.distill.bits: \d+, what distill.bits is now, is not in it"),
        ({"distill.bits": {"low": 12, "high": 30}}, r"tune.space.distill.bits: 30 cannot be: .*distill.bits = 30"),
        ({}, r"tune.space = {}"),
    ],
)
def test_what_is_wrong_with_a_space_is_said_in_one_line(space: dict[str, Any], says: str) -> None:
    params = yaml.safe_load(TEXT)
    params["tune"]["space"] = space
    with pytest.raises(StageError, match=rf"^params\.yaml: {says}"):
        check(read_settings(Tune, "tune", params).space, params, SETTINGS)


def test_the_project_s_own_space_can_be_searched() -> None:
    params = yaml.safe_load(TEXT)
    check(read_settings(Tune, "tune", params).space, params, SETTINGS | {"prune": Prune})


def test_writing_a_point_changes_its_values_and_no_other_character() -> None:
    point = {
        "distill.bits": 14, RATE: 1e-05, "distill.char_ngrams": [4, 6], "train.device": "cpu",
        "quantize.parity.mean": 0.02, "restill.notify_block": True, "distill.bag.hidden": None,
    }  # fmt: skip
    result = edit_yaml(TEXT, point)
    assert yaml.safe_load(result) == apply_point(yaml.safe_load(TEXT), point)
    lines = [(old, new) for old, new in zip(TEXT.splitlines(), result.splitlines(), strict=True) if old != new]
    assert len(lines) == len(point)
    assert all(old.partition("#")[2] == new.partition("#")[2] for old, new in lines), "comments stay"
    assert sum(old.find("#") == new.find("#") > 0 for old, new in lines) == 4, "in their column too"
    with pytest.raises(StageError, match=r"prepare\.redact: write its value in one line"):
        edit_yaml(TEXT, {"prepare.redact": []})


# --- the front ---------------------------------------------------------------------------------------------------------


def point(trial: int, size: int, latency_us: float, quality: float, **values: Any) -> Point:
    return Point(trial, size, latency_us, quality, values)


TABLE = [
    point(0, 300, 20, 0.990, bits=16),
    point(1, 300, 21, 0.990, bits=17),  # slower than 0, and no better
    point(2, 100, 30, 0.970, bits=12),  # smallest
    point(3, 200, 10, 0.985, bits=14),  # fastest
    point(4, 200, 10, 0.984, bits=15),  # worse than 3
    point(5, 400, 40, 0.995, bits=18),  # best
    point(6, 300, 20, 0.990, bits=13),  # the same figures as 0: the first stands for both
]
EXACT = Tolerances(bytes=1e-9, latency_us=1e-9, pr_auc=1e-9)
ROUGH = Tolerances(bytes=0.05, latency_us=0.1, pr_auc=0.002)


def test_the_front_is_what_no_other_beats() -> None:
    assert [one.trial for one in front(TABLE, EXACT)] == [2, 3, 0, 5]
    assert front([], EXACT) == []


def test_of_points_alike_the_front_shows_the_best_on_valid() -> None:
    near = [point(7, 100, 31, 0.9702), point(8, 299, 19.9, 0.9899), point(9, 399, 39.9, 0.98)]
    assert [one.trial for one in front([*TABLE, *near], ROUGH)] == [7, 3, 0, 5]
    assert [one.trial for one in front([*TABLE, *near], EXACT)] == [2, 7, 3, 8, 0, 5]


@pytest.mark.parametrize(
    ("measure", "min_pr_auc", "trial"),
    [("smallest", 0.9, 2), ("fastest", 0.9, 3), ("smallest", 0.98, 3), ("smallest", 0.99, 0), ("fastest", 0.995, 5)],
)
def test_the_smallest_or_fastest_that_is_good_enough_is_chosen(measure: str, min_pr_auc: float, trial: int) -> None:
    chosen = choose(TABLE, measure, min_pr_auc, EXACT)
    assert chosen is not None
    assert chosen.trial == trial


def test_what_is_not_good_enough_takes_no_place_of_what_is() -> None:
    pair = [point(1, 100, 10, 0.98999), point(2, 101, 10, 0.99001)]
    assert choose(pair, "smallest", 0.99, ROUGH) == pair[1]
    assert choose(pair, "smallest", 0.9, EXACT) == pair[0]


def test_where_none_is_good_enough_none_is_chosen_and_table_and_plot_say_so() -> None:
    assert choose(TABLE, "smallest", 0.999, EXACT) is None
    table = rows(front(TABLE, EXACT), None, {"bits": 16})
    assert [row["trial"] for row in table] == ["2", "3", "0, now", "5"]
    assert [row["other than params.yaml"] for row in table] == ["bits 12", "bits 14", "nothing", "bits 18"]
    picture = draw(TABLE, TABLE[:1], None, 0.999, {"bits": 16})
    assert "<!-- now -->" in picture
    assert "<!-- chosen -->" not in picture
    assert "<!-- chosen -->" in draw(TABLE, TABLE[:1], TABLE[3], 0.98, {"bits": 16})


def test_a_curve_is_behind_below_the_median_of_others_at_its_epoch() -> None:
    others = [[0.1, 0.9, 0.9], [0.3, 0.7, 0.9], [0.5, 0.8]]
    assert studies.is_below_median([0.2], others)
    assert not studies.is_below_median([0.3], others)
    assert studies.is_below_median([0.6, 0.79], others)
    assert not studies.is_below_median([0.95, 0.1], others), "its best counts, not its last"
    assert studies.is_below_median([0.1, 0.1, 0.8], others), "only others that came so far"
    assert not studies.is_below_median([0.0, 0.0, 0.0, 0.0], others), "none came so far"


# --- searching ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def store(mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One MLflow store for all: making one takes longer than a search."""
    with pytest.MonkeyPatch.context() as patch:
        uri = f"sqlite:///{copy2(mlflow_store, tmp_path_factory.mktemp('store') / 'mlflow.db')}"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


def make_project(root: Path, poisoned: bool = False) -> Path:
    """The files that a search reads, of a teacher that is right; poison: rows of other splits that would break it."""
    paths = Paths(root)
    paths.prepared.parent.mkdir(parents=True)
    frame = made_prepared(["ham", "spam"], 280)
    seen = frame.split.isin(["train", "valid"])
    if poisoned:
        frame.loc[~seen, ["input", "raw"]] = None
        frame.loc[~seen, "label_id"] = -7
        frame.loc[~seen, "weight"] = np.nan
    frame.to_parquet(paths.prepared)
    normaliser = {"steps": ["unicode", "whitespace"], "redact": [], "characters": 4000}
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam", "normaliser": normaliser})
    with paths.logits.open("wb") as file:
        logits = np.eye(2, dtype=np.float32)[frame.label_id[seen]] * 4
        np.savez(file, ids=frame.id[seen].to_numpy(dtype=str), logits=logits)
    (root / "params.yaml").write_text(edit_yaml(TEXT, SMALL))
    return root


def searching(root: Path, params: dict[str, Any] | None = None, **changes: Any) -> Search:
    known = yaml.safe_load((root / "params.yaml").read_text())
    settings = Tune.model_validate(known["tune"] | {"space": {"distill.bits": {"low": 8, "high": 11}}} | changes)
    return Search(settings, Paths(root), apply_point(known, params or {}), STEPS, NEEDS)


def ends(search: Search) -> list[str]:
    return [studies.outcome(trial)[0] for trial in search.study.trials]


def children(run: str) -> list[Any]:
    return list(mlflow.MlflowClient().search_runs(["1"], f"tags.`mlflow.parentRunId` = '{run}'"))


def test_a_search_begins_where_params_yaml_is_is_tracked_and_goes_on_where_it_was(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    first = searching(root)
    run = run_trials(first, 600, 1)
    (now,) = first.points
    assert now.values == {"distill.bits": 10} == first.present
    student = root / "var/tune/trial/models/student-quantized"
    valid = made_prepared(["ham", "spam"], 280).query("split == 'valid'")
    assert now.bytes == folder_bytes(student)
    assert now.pr_auc == ranking(Student(student).logits(list(valid.input)), valid.label_id.to_numpy())["pr_auc"]
    assert now.latency_us > 0
    assert len(first.study.trials[0].user_attrs[studies.CURVE]) == SMALL[EPOCHS]

    second = searching(root)
    assert second.study.study_name == first.study.study_name
    assert run_trials(second, 600, 1) == run, "the same run in MLflow"
    assert second.points[0] == now
    assert len(second.points) == 2
    assert second.points[1].values != now.values
    assert not (root / "models").exists(), "a trial leaves the project as it is"

    trials = children(run)
    assert {trial.info.run_name for trial in trials} == {f"trial {one.trial}" for one in second.points}
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    assert {stage.info.run_name for trial in trials for stage in children(trial.info.run_id)} == {"distill", "quantize"}
    assert trials[-1].data.metrics["bytes"] == now.bytes
    assert trials[-1].data.params == {"distill.bits": "10"}


def test_another_world_is_another_study_and_the_present_values_are_no_part_of_it(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    name = searching(root).study.study_name
    assert searching(root, {"distill.bits": 11, "train.epochs": 9}).study.study_name == name
    assert searching(root, {EPOCHS: 9}).study.study_name != name, "a parameter that stays"
    assert searching(root, space={"distill.bits": {"low": 8, "high": 12}}).study.study_name != name
    with np.load(Paths(root).logits) as stored:
        np.savez(Paths(root).logits, ids=stored["ids"], logits=stored["logits"] * 2)
    assert searching(root).study.study_name != name, "another teacher"
    Paths(root).logits.unlink()
    with pytest.raises(StageError, match=r"data/logits.npz: not there yet; `make run`"):
        searching(root)


def test_the_point_of_a_killed_trial_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    search = searching(root)
    distributions = {name: one.distribution for name, one in search.settings.space.items()}
    search.study.enqueue_trial({"distill.bits": 9})
    killed = search.study.ask(distributions)  # and its process died
    run_trials(search, 600, 2)
    assert ends(search) == ["failed", "finished", "finished"]
    assert studies.outcome(search.study.trials[killed.number])[1] == "killed"
    assert [one.values["distill.bits"] for one in search.points] == [9, 10], "then what params.yaml says"
    search.study.enqueue_trial({"distill.bits": 8})
    for _ in range(studies.ATTEMPTS):
        assert search.study.ask(distributions).params == {"distill.bits": 8}
        studies.retry_killed(search.study)
    assert not search.study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))


def test_a_trial_that_breaks_its_gate_is_infeasible_and_a_small_space_comes_to_an_end(tmp_path: Path) -> None:
    search = searching(make_project(tmp_path), space=RATES, warmup={"trials": 99, "epochs": 0})
    run = run_trials(search, 600)  # no limit: it ends as there is nothing else to try
    (broken,) = [trial for trial in search.study.trials if studies.outcome(trial)[0] == studies.INFEASIBLE]
    assert "mean" in studies.outcome(broken)[1]
    assert "distill.parity.mean" in studies.outcome(broken)[1]
    assert [one.trial for one in search.points] == [0]
    assert search.study.trials[-1].user_attrs[studies.REASON].startswith("the same as trial")
    assert {trial.info.run_name: trial.info.status for trial in children(run)} == {
        "trial 0": "FINISHED",
        f"trial {broken.number}": "FAILED",
    }


def test_what_leads_nowhere_is_stopped_early(tmp_path: Path) -> None:
    loose = {f"distill.parity.{name}": 1 for name in ("mean", "disagreement_rate", "threshold_disagreement", "worst_slice")}
    search = searching(make_project(tmp_path / "one"), loose, space=RATES, warmup={"trials": 1, "epochs": 2})
    search.study.enqueue_trial({RATE: "0.05"})
    search.study.enqueue_trial({RATE: "1e-06"})
    run = run_trials(search, 600, 2)
    assert ends(search) == ["finished", studies.STOPPED]
    assert studies.outcome(search.study.trials[1])[1].startswith("epoch 3: PR-AUC")
    assert [trial.info.status for trial in children(run)] == ["KILLED", "FINISHED"]
    assert len(search.points) == 1

    slow = {RATE: {"choices": [0.05, 0.005]}}  # it learns, later than the other
    near = searching(make_project(tmp_path / "two"), loose, space=slow, warmup={"trials": 1, "epochs": 2}, margin=1)
    near.study.enqueue_trial({RATE: "0.05"})
    near.study.enqueue_trial({RATE: "0.005"})
    run_trials(near, 600, 2)
    why = studies.outcome(near.study.trials[1])
    assert ends(near) == ["finished", "finished"], f"good enough to be chosen, it goes on: {why}"


def test_no_trial_is_begun_that_would_not_end_in_time(tmp_path: Path) -> None:
    search = searching(make_project(tmp_path))
    run_trials(search, 600, 1)
    run_trials(search, studies.typical_seconds(search.study))
    assert ends(search) == ["finished"]


def test_rows_of_test_golden_and_future_are_not_read(tmp_path: Path) -> None:
    clean, poisoned = (searching(make_project(tmp_path / name, poisoned=name == "poisoned")) for name in ("clean", "poisoned"))
    assert clean.study.study_name == poisoned.study.study_name
    for search in (clean, poisoned):
        run_trials(search, 600, 1)
    (one,), (other,) = clean.points, poisoned.points
    assert (one.bytes, one.pr_auc, one.values) == (other.bytes, other.pr_auc, other.values)
    models = [search.workspace.folder / "trial/models/student-quantized/model.onnx" for search in (clean, poisoned)]
    assert models[0].read_bytes() == models[1].read_bytes()
