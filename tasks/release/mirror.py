"""Effect mirror: what the release store says, as MLflow's aliases; what the gate said, on the pipeline's run.

MLflow is where people look, the store is what serves. So an MLflow that is away costs a line on stderr and nothing
else, and the next command makes up for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from service.store import Pointer, StoreError, read_pointer
from tasks.files import read_json, write_json
from tasks.stage import Paths
from tasks.tracking import connect

ALIASES = ("champion", "previous", "challenger")
MIRRORED = "mirrored.json"
"""Beside the pointer: the token whose aliases MLflow has."""
PATIENCE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def mirror(paths: Paths, pointer: Pointer) -> None:
    """Set MLflow's aliases to what ``pointer`` says; where MLflow has them already, it is not asked. Never raises."""
    done = paths.store / MIRRORED
    try:
        if done.exists() and read_json(done) == {"token": pointer.token}:
            return
        os.environ.setdefault(PATIENCE, "2")  # a server that is down must not hold up a promotion for minutes
        connect(paths)
        missing = set_aliases(paths.name, pointer)
        if not missing:
            write_json(done, {"token": pointer.token})
    except Exception as error:  # of whatever kind: the promotion stands
        print(
            f"mirror: MLflow does not have the aliases yet ({type(error).__name__}); the next command tries again",
            file=sys.stderr,
        )
        return
    for release in missing:
        print(f"mirror: {release} is not registered in MLflow; `python -m tasks.release.register` does it", file=sys.stderr)


def set_aliases(model: str, pointer: Pointer | None, registered: str | None = None) -> list[str]:
    """Champion and previous as the pointer says; challenger the version that was ``registered`` just now, else the one
    that is it already, else the newest: of those that are neither.

    Returns the releases that no version of the registered model stands for: their alias is taken away, for it would
    point at another release.
    """
    client = mlflow.MlflowClient()
    versions = {found.tags.get("release"): found for found in client.search_model_versions(f"name = '{model}'")}
    if not versions:
        return [] if pointer is None else [pointer.champion]
    named = {} if pointer is None else {"champion": pointer.champion, "previous": pointer.previous}
    others = [found for release, found in versions.items() if release not in named.values()]
    wanted = {alias: versions[release].version for alias, release in named.items() if release in versions}
    has = client.get_registered_model(model).aliases
    if others:
        by_merit = [registered, str(has.get("challenger"))]
        last = max(others, key=lambda found: (*(str(found.version) == version for version in by_merit), int(found.version)))
        wanted["challenger"] = last.version
    for alias in ALIASES:
        if alias in wanted and str(has.get(alias)) != str(wanted[alias]):
            client.set_registered_model_alias(model, alias, wanted[alias])
        elif alias not in wanted and alias in has:
            client.delete_registered_model_alias(model, alias)
    return [release for release in named.values() if release is not None and release not in versions]


def alias_registered(model: str, store: Path, version: str) -> None:
    """Set the aliases after a release was registered, or an earlier one again; MLflow is there, for it just took it."""
    try:
        set_aliases(model, read_pointer(store), version)
    except StoreError as error:  # the store's own commands stop at it; a registration need not
        print(f"mirror: {error}", file=sys.stderr)


def log_gate(paths: Paths, folder: Path, report: Path) -> None:
    """The gate's report, JSON and HTML, as artifacts of the run that made the release. Never raises."""
    try:
        os.environ.setdefault(PATIENCE, "2")
        run = pipeline_of(connect(paths), folder)
        for path in (report, report.with_suffix(".html")):
            mlflow.MlflowClient().log_artifact(run, str(path), "gate")
    except Exception as error:  # of whatever kind: the report lies in the folder all the same
        print(f"mirror: the gate's report is not in MLflow ({type(error).__name__}: {_line(error)})", file=sys.stderr)


def pipeline_of(experiment: str, folder: Path) -> str:
    """The run that tells of the release in ``folder``, or else the one that evaluated it."""
    release = read_json(folder / "manifest.json")["id"]
    found = mlflow.MlflowClient().search_runs([experiment], f"tags.`restill.release` = '{release}'", max_results=1)
    run = found[0] if found else evaluated_by(experiment, read_json(folder / "lineage.json"))
    if run is None:
        raise MlflowException(f"it knows no run of the release {release}")
    return str(run.info.run_id)


def evaluated_by(experiment: str, lineage: Mapping[str, Any]) -> Run | None:
    """The pipeline's run that evaluated the release of this lineage; None where MLflow does not know it."""
    run = lineage["mlflow"]["evaluate"]["pipeline"]
    found = mlflow.MlflowClient().search_runs([experiment], f"attributes.run_id = '{run}'", max_results=1)
    return found[0] if found else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
