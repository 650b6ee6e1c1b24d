"""A search in MLflow: one run for its study, a run a trial below it, and below that what the trial's stages track."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna import TrialPruned

from tasks.tracking import INVOCATION_VARIABLE, connect, find_or_make_parent


@contextmanager
def study_run(root: Path, study: str) -> Iterator[str]:
    """The id of the study's run in the project's experiment: a search that goes on goes on with its run."""
    run = _run(root, study, "tune")
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    finally:
        mlflow.MlflowClient().set_terminated(run, status)


@contextmanager
def trial_run(root: Path, key: str, name: str, above: str) -> Iterator[str]:
    """The id of a trial's run. Stages that are called inside are tracked below it, wherever their folder lies.

    A trial that was stopped early ends as KILLED, one that broke a gate as FAILED.
    """
    run = _run(root, key, name)
    client = mlflow.MlflowClient()
    client.set_tag(run, MLFLOW_PARENT_RUN_ID, above)
    status = "FAILED"
    try:
        with _environment(MLFLOW_TRACKING_URI=mlflow.get_tracking_uri(), **{INVOCATION_VARIABLE: key}):
            yield run
        status = "FINISHED"
    except TrialPruned:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run, status)


def _run(root: Path, key: str, name: str) -> str:
    run = find_or_make_parent(connect(root), key, root)
    mlflow.MlflowClient().update_run(run, name=name)
    return run


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
