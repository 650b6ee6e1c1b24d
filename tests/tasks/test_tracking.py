"""Runs are named, told apart and marked; those whose process died do not stay at work for ever, and say so."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from tasks.release.register import headline
from tasks.stage import Paths, Settings, StageError
from tasks.tracking import ENDED, KIND, PROCESS, alive, connect, find_or_make_parent, process_name, reconcile, run_name, track
from tests.conftest import made_prepared
from tests.imports import ROOT

TAG, TRAINING = next(iter(KIND.items()))


def test_a_process_is_alive_while_it_is(tmp_path: Path) -> None:
    assert alive(process_name())
    host, pid, started = process_name().split("/")
    assert not alive(f"{host}/{pid}/{float(started) - 100:.2f}"), "the same number, another process"
    assert alive(f"another-{host}/{pid}/0.00"), "of another machine's processes nothing is known"


def test_a_start_ends_the_runs_of_processes_that_died(own_store: None, tmp_path: Path) -> None:
    named = subprocess.run(
        [sys.executable, "-c", "from tasks.tracking import process_name; print(process_name())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    experiment = connect(Paths(tmp_path))
    client = mlflow.MlflowClient()
    dead = client.create_run(experiment, tags={PROCESS: named.stdout.strip()}).info.run_id
    living = client.create_run(experiment, tags={PROCESS: process_name()}).info.run_id
    assert reconcile(Paths(tmp_path)) == [dead]
    assert client.get_run(dead).info.status == "KILLED"
    assert named.stdout.strip() in client.get_run(dead).data.tags[ENDED]
    assert ENDED not in client.get_run(living).data.tags
    assert client.get_run(living).info.status == "RUNNING"
    assert reconcile(Paths(tmp_path)) == []


def test_a_new_pipeline_ends_the_runs_of_processes_that_died(own_store: None, tmp_path: Path) -> None:
    experiment = connect(Paths(tmp_path))
    client = mlflow.MlflowClient()
    host, pid, _ = process_name().split("/")
    dead = client.create_run(experiment, tags={PROCESS: f"{host}/{pid}/1.00"}).info.run_id
    made = find_or_make_parent(experiment, "a-key", Paths(tmp_path))
    assert client.get_run(dead).info.status == "KILLED"
    assert client.get_run(made).info.status == "RUNNING"


def test_the_experiment_is_one_of_model_training(own_store: None, tmp_path: Path) -> None:
    experiment = connect(Paths(tmp_path))
    client = mlflow.MlflowClient()
    assert client.get_experiment(experiment).tags[TAG] == TRAINING


@pytest.mark.parametrize(
    ("stood", "stands"),
    [
        (None, TRAINING),
        ("genai_development_inferred", TRAINING),
        ("no_inferred_type", TRAINING),
        ("genai_development", "genai_development"),
    ],
)
def test_an_experiment_from_before_is_marked_unless_a_user_did(
    own_store: None, tmp_path: Path, stood: str | None, stands: str
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    made = mlflow.create_experiment("restill", tags={TAG: stood} if stood else {})
    assert connect(Paths(tmp_path)) == made
    assert mlflow.MlflowClient().get_experiment(made).tags[TAG] == stands


def test_a_run_is_named_by_its_time_and_its_snapshot(tmp_path: Path) -> None:
    now = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    assert run_name(tmp_path, now) == "pipeline 2026-03-04 05:06, all data"
    (tmp_path / "params.yaml").write_text("ingest: {until: '2002-09-01'}")
    assert run_name(tmp_path, now) == "pipeline 2026-03-04 05:06, until 2002-09-01"
    (tmp_path / "params.yaml").write_text("ingest: {until: null}")
    assert run_name(tmp_path, now) == "pipeline 2026-03-04 05:06, all data"


@pytest.mark.parametrize(
    ("error", "said"),
    [(StageError("params.yaml: x = 1: no"), "train: params.yaml: x = 1: no"), (ValueError("a text"), "train: ValueError")],
)
def test_a_stage_that_fails_says_why_and_one_that_then_succeeds_takes_it_back(
    own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setenv("RESTILL_INVOCATION", "a-key")
    paths = Paths(tmp_path)
    with pytest.raises(type(error)), track("train", Settings(), paths) as tracker:
        raise error
    client = mlflow.MlflowClient()
    for run in (tracker.run, tracker.parent):
        assert client.get_run(run).info.status == "FAILED"
        assert client.get_run(run).data.tags[ENDED] == said
    with track("train", Settings(), paths) as again:
        pass
    assert again.parent == tracker.parent
    assert client.get_run(again.parent).info.status == "FINISHED"
    assert ENDED not in client.get_run(again.parent).data.tags
    assert client.get_run(tracker.run).data.tags[ENDED] == said


def test_the_data_set_is_an_input_of_the_pipelines_run_too(
    own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTILL_INVOCATION", "a-key")
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    rows = made_prepared(["ham", "spam"], 20)
    rows.to_parquet(paths.prepared)
    with track("train", Settings(), paths) as tracker:
        tracker.data(paths.prepared, rows, "training")
    client = mlflow.MlflowClient()
    found = [client.get_run(run).inputs.dataset_inputs for run in (tracker.run, tracker.parent)]
    assert [[one.dataset.name for one in inputs] for inputs in found] == [["prepared"], ["prepared"]]
    assert found[0][0].dataset.digest == found[1][0].dataset.digest
    assert [tag.value for tag in found[1][0].tags if tag.key == "mlflow.data.context"] == ["training"]


def test_headline_figures_sort_before_all_others_and_leave_out_what_is_not_known() -> None:
    card = {
        "variant": "small",
        "against_teacher": {"kept": {"test": {"pr_auc": 0.99}}, "times_smaller": 300, "times_faster": 60.5},
        "figures": {"small": {"metrics": {"test": {"pr_auc": 0.97}, "future": {"pr_auc": None}}}},
    }
    found = headline(card)
    assert list(found.values()) == [0.99, 300, 60.5, 0.97]
    assert sorted([*found, "baseline/test/pr_auc", "baseline_valid_pr_auc"])[:4] == list(found)
