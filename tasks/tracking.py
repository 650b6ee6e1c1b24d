"""MLflow, told once: one parent run for a pipeline run, one child for each stage that trains or measures.

All stages that one ``dvc repro`` or one flow runs share an invocation, and the first of them makes the parent. A
stage that DVC skips makes no run: its last one is known from ``models/runs/STAGE.json``, an output of the stage.
"""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import psutil
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from tasks.lineage import commit_text, lock_hash, sha256
from tasks.stage import Paths, StageError, sqlite_uri, write_json

EXPERIMENT = "restill"
INVOCATION = "restill.invocation"
INVOCATION_VARIABLE = "RESTILL_INVOCATION"
CLOCK_SECONDS = 5
"""By which the time of a process's start may differ from itself, where the machine's clock was set meanwhile."""
PROCESS = "restill.process"
"""The tag that says which process writes to a run, so that a run whose process died can be told from one at work."""


def connect(root: Path) -> str:
    """Point MLflow at ``MLFLOW_TRACKING_URI`` or the project's own SQLite file; the id of the experiment.

    Raises StageError where MLflow cannot be reached there.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri(root)
    try:
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(mlflow.create_experiment(EXPERIMENT, artifact_location=(root.resolve() / "mlartifacts").as_uri()))
    except MlflowException as error:
        said = f"MLFLOW_TRACKING_URI = {uri}: MLflow cannot be reached: {' '.join(str(error).split())[:300]}"
        raise StageError(re.sub(r"//[^/@\s]*@", "//***@", said)) from error  # an address may hold a password


def tracking_uri(root: Path) -> str:
    """The project's own SQLite file, for MLflow."""
    return sqlite_uri(root.resolve() / "mlflow.db")


def invocation() -> str:
    """What the stages of one pipeline run have in common: the flow's run, else the ``dvc`` process above us."""
    if key := os.environ.get(INVOCATION_VARIABLE):
        return key
    own = psutil.Process()
    above = [process for process in own.parents() if is_dvc(process)]
    process = above[-1] if above else own
    return f"{process.pid}@{process.create_time():.2f}"


def is_dvc(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name == "dvc" for word in process.cmdline()[:3])
    except psutil.Error:  # somebody else's process: it may not be looked into, and it is not our dvc
        return False


def find_or_make_parent(experiment: str, key: str, root: Path) -> str:
    """The id of the parent run of the invocation ``key``, which is running from now on."""
    client = mlflow.MlflowClient()
    found = client.search_runs([experiment], f"tags.`{INVOCATION}` = '{key}'", max_results=1)
    if found:
        run = str(found[0].info.run_id)
    else:
        tags = {INVOCATION: key, "git.commit": commit_text(root), "dvc.lock": lock_hash(root)}
        run = str(client.create_run(experiment, run_name="pipeline", tags=tags).info.run_id)
    client.update_run(run, status="RUNNING")
    client.set_tag(run, PROCESS, process_name())
    return run


def process_name() -> str:
    """This process, as no other process on any machine is called: host, id, time of its start."""
    own = psutil.Process()
    return f"{socket.gethostname()}/{own.pid}/{own.create_time():.2f}"


def alive(name: str) -> bool:
    """Whether the process of this name may still be at work; of another machine's processes nothing is known."""
    host, pid, started = name.split("/")
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False


def reconcile(root: Path) -> list[str]:
    """End every run that says RUNNING though its process died; the ids of those runs."""
    experiment = connect(root)
    client = mlflow.MlflowClient()
    dead = [
        str(run.info.run_id)
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'")
        if (name := run.data.tags.get(PROCESS)) and not alive(name)
    ]
    for run_id in dead:
        client.set_terminated(run_id, "KILLED")
    return dead


class Tracker:
    """What a stage may say to its run, and to the pipeline's."""

    def __init__(self, run: str, parent: str) -> None:
        self.run = run
        self.parent = parent

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        mlflow.log_metrics(dict(values), step=step)

    def headline(self, values: Mapping[str, float]) -> None:
        """Figures of the pipeline as a whole: they stand in the parent's row of the run table."""
        mlflow.log_metrics(dict(values), run_id=self.parent)

    def file(self, path: Path, on_pipeline: bool = False) -> None:
        mlflow.MlflowClient().log_artifact(self.parent if on_pipeline else self.run, str(path))

    def text(self, content: str, name: str) -> None:
        """A small file of the pipeline's run, such as a plot."""
        mlflow.MlflowClient().log_text(self.parent, content, name)

    def data(self, path: Path, rows: pd.DataFrame, context: str) -> None:
        """The rows that ``context`` saw, by the hash of their file. Texts are left out: no message leaves the data."""
        shown = rows[["id", "split", "label"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file may be read by two of MLflow's classes, which is no concern here
            dataset = from_pandas(shown, source=path.as_uri(), name=path.stem, digest=sha256(path)[:32])
        mlflow.log_input(dataset, context=context)


@contextmanager
def track(stage: str, settings: BaseModel, paths: Paths) -> Iterator[Tracker]:
    """A child run named ``stage`` with the stage's parameters; a stage that fails leaves a failed run."""
    experiment = connect(paths.root)
    parent = find_or_make_parent(experiment, invocation(), paths.root)
    client = mlflow.MlflowClient()
    status = "FAILED"
    try:
        with mlflow.start_run(
            experiment_id=experiment,
            run_name=stage,
            parent_run_id=parent,
            tags={"restill.stage": stage, PROCESS: process_name()},
        ) as run:
            for name, value in (("git.commit", commit_text(paths.root)), ("dvc.lock", lock_hash(paths.root, stage))):
                mlflow.set_tag(name, value)
            mlflow.log_params(flatten(settings.model_dump(mode="json")))
            yield Tracker(run.info.run_id, parent)
        write_json(paths.runs / f"{stage}.json", {"run": run.info.run_id, "pipeline": parent})
        client.set_tag(parent, f"restill.stage.{stage}", run.info.run_id)
        status = "FINISHED"
    finally:
        client.set_terminated(parent, status)


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested parameters as dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
