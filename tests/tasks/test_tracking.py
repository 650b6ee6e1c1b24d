"""Runs whose process died do not stay at work for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow

from tasks.tracking import PROCESS, alive, connect, process_name, reconcile
from tests.imports import ROOT


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
    experiment = connect(tmp_path)
    client = mlflow.MlflowClient()
    dead = client.create_run(experiment, tags={PROCESS: named.stdout.strip()}).info.run_id
    living = client.create_run(experiment, tags={PROCESS: process_name()}).info.run_id
    assert reconcile(tmp_path) == [dead]
    assert client.get_run(dead).info.status == "KILLED"
    assert client.get_run(living).info.status == "RUNNING"
    assert reconcile(tmp_path) == []
