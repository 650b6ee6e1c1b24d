"""MLflow, told once: one parent run for a pipeline run, one child for each stage that trains or measures.

All stages that one ``dvc repro`` or one flow runs share an invocation, and the first of them makes the parent. A
stage that DVC skips makes no run: its last one is known from ``models/runs/STAGE.json``, an output of the stage.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import pandas as pd
import psutil
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from pydantic import BaseModel

from tasks.files import sqlite_uri, write_json
from tasks.lineage import commit_text, lock_hash, sha256
from tasks.stage import Paths, StageError, read_params

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Model training, and no chat application. MLflow has no constant for it; its pages write and read this tag."""
ENDED = "restill.ended"
"""The tag that says why a run did not end well."""
INVOCATION = "restill.invocation"
INVOCATION_VARIABLE = "RESTILL_INVOCATION"
CLOCK_SECONDS = 5
"""By which the time of a process's start may differ from itself, where the machine's clock was set meanwhile."""
PROCESS = "restill.process"
"""The tag that says which process writes to a run, so that a run whose process died can be told from one at work."""


def connect(paths: Paths) -> str:
    """Point MLflow at ``MLFLOW_TRACKING_URI`` or the project's own SQLite file; the id of the workload's experiment.

    Raises StageError where MLflow cannot be reached there.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri(paths.project)
    try:
        mlflow.set_tracking_uri(uri)
        experiment = experiment_of(paths.name, artifacts_of(paths).as_uri())
    except MlflowException as error:
        said = f"MLFLOW_TRACKING_URI = {uri}: MLflow cannot be reached: {' '.join(str(error).split())[:300]}"
        raise StageError(re.sub(r"//[^/@\s]*@", "//***@", said)) from error  # an address may hold a password
    _remove_stray_folder(uri)
    atexit.register(_remove_stray_folder, uri)
    return experiment


def _remove_stray_folder(uri: str) -> None:
    """MLflow takes SQLite's own form of a path for a folder below the current one and makes it, and pip then for a project."""
    folder = Path(urlsplit(uri).path[1:]).parent
    if folder.parts[:1] == ("file:",) and folder.is_dir():
        os.removedirs(folder)


def experiment_of(name: str, artifacts: str) -> str:
    """The id of the experiment, made where there is none, and marked as model training where no user said otherwise."""
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        return str(mlflow.create_experiment(name, artifact_location=artifacts, tags=KIND))
    for tag, kind in KIND.items():
        said = experiment.tags.get(tag)
        if not said or "inferred" in said:  # that is a guess of MLflow's page
            mlflow.MlflowClient().set_experiment_tag(experiment.experiment_id, tag, kind)
    return str(experiment.experiment_id)


def tracking_uri(project: Path) -> str:
    """The project's own SQLite file, for MLflow."""
    return sqlite_uri(project.resolve() / "mlflow.db")


def artifacts_of(paths: Paths) -> Path:
    """Where MLflow keeps the files of the workload's runs."""
    return paths.project.resolve() / "mlartifacts" / paths.workload


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


def find_or_make_parent(experiment: str, key: str, paths: Paths) -> str:
    """The id of the parent run of the invocation ``key``, which is running from now on."""
    client = mlflow.MlflowClient()
    found = client.search_runs([experiment], f"tags.`{INVOCATION}` = '{key}'", max_results=1)
    if found:
        run = str(found[0].info.run_id)
    else:
        end_dead(experiment)
        tags = {INVOCATION: key, "git.commit": commit_text(paths.project), "dvc.lock": lock_hash(paths.project, paths.workload)}
        run = str(client.create_run(experiment, run_name=run_name(paths.root, datetime.now(UTC)), tags=tags).info.run_id)
    client.update_run(run, status="RUNNING")
    client.set_tag(run, PROCESS, process_name())
    return run


def run_name(root: Path, now: datetime) -> str:
    """What a pipeline's run is called until something is released: when it began, and which snapshot it is of."""
    try:
        until = (read_params(root).get("ingest") or {}).get("until")
    except StageError:  # whoever needs the parameters says what is wrong with them
        until = None
    return f"pipeline {now:%Y-%m-%d %H:%M}, " + (f"until {until}" if until else "all data")


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


def reconcile(paths: Paths) -> list[str]:
    """End every run that says RUNNING though its process died; the ids of those runs."""
    return end_dead(connect(paths))


def end_dead(experiment: str) -> list[str]:
    """``reconcile``, for an experiment of the store that MLflow points to."""
    client = mlflow.MlflowClient()
    dead = {
        str(run.info.run_id): name
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'")
        if (name := run.data.tags.get(PROCESS)) and not alive(name)
    }
    for run_id, name in dead.items():
        client.set_tag(run_id, ENDED, f"its process died before it could say so: {name}")
        client.set_terminated(run_id, "KILLED")
    return list(dead)


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
        """The rows that ``context`` saw, by the hash of their file. Inputs are left out: none leaves the data."""
        shown = rows[["id", "split", "label"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file may be read by two of MLflow's classes, which is no concern here
            dataset = from_pandas(shown, source=path.as_uri(), name=path.stem, digest=sha256(path)[:32])
        mlflow.log_input(dataset, context=context)
        seen = DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        mlflow.MlflowClient().log_inputs(self.parent, datasets=[seen])


@contextmanager
def track(stage: str, settings: BaseModel, paths: Paths) -> Iterator[Tracker]:
    """A child run named ``stage`` with the stage's parameters; a stage that fails leaves a failed run."""
    experiment = connect(paths)
    parent = find_or_make_parent(experiment, invocation(), paths)
    client = mlflow.MlflowClient()
    status = "FAILED"
    try:
        with mlflow.start_run(
            experiment_id=experiment,
            run_name=stage,
            parent_run_id=parent,
            tags={"restill.stage": stage, PROCESS: process_name()},
        ) as run:
            locked = lock_hash(paths.project, paths.workload, stage)
            for name, value in (("git.commit", commit_text(paths.project)), ("dvc.lock", locked)):
                mlflow.set_tag(name, value)
            mlflow.log_params(flatten(settings.model_dump(mode="json")))
            with told(stage, [run.info.run_id, parent]):
                yield Tracker(run.info.run_id, parent)
        write_json(paths.runs / f"{stage}.json", {"run": run.info.run_id, "pipeline": parent})
        client.set_tag(parent, f"restill.stage.{stage}", run.info.run_id)
        status = "FINISHED"
    finally:
        client.set_terminated(parent, status)


@contextmanager
def told(stage: str, runs: list[str]) -> Iterator[None]:
    """Tag each of ``runs`` with the error that ends the block, if one does.

    Of an error that is not ours the kind alone is told: its words may hold a part of an input.
    """
    client = mlflow.MlflowClient()
    try:
        yield
    except BaseException as error:  # signals too: whatever ends the stage is told, and raised again
        reason = f"{stage}: {error}" if isinstance(error, StageError) else f"{stage}: {type(error).__name__}"
        for run in runs:
            client.set_tag(run, ENDED, " ".join(reason.split())[:500])
        raise
    for run in runs:
        if ENDED in client.get_run(run).data.tags:  # of a try before this one
            client.delete_tag(run, ENDED)


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested parameters as dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
