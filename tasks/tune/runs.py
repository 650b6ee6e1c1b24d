"""MLflow runs of a search: one per study, nested in it one per trial, and in that the runs of the trial's stages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna import TrialPruned

from tasks.stage import Paths
from tasks.tracking import INVOCATION_VARIABLE, connect, find_or_make_parent


@contextmanager
def study_run(paths: Paths, study: str) -> Iterator[str]:
    """The id of the study's run in the project's experiment; a resumed search reuses its run."""
    run = _find_or_create_run(paths, study, "tune")
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    finally:
        mlflow.MlflowClient().set_terminated(run, status)


@contextmanager
def trial_run(paths: Paths, key: str, name: str, parent_run: str) -> Iterator[str]:
    """The id of a trial's run. Stages called inside are tracked as its children, wherever their folder is.

    A pruned trial ends as KILLED, an infeasible one as FAILED.
    """
    run = _find_or_create_run(paths, key, name)
    client = mlflow.MlflowClient()
    client.set_tag(run, MLFLOW_PARENT_RUN_ID, parent_run)
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


def _find_or_create_run(paths: Paths, key: str, name: str) -> str:
    run = find_or_make_parent(connect(paths), key, paths)
    mlflow.MlflowClient().update_run(run, name=name)
    return run


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    previous = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
