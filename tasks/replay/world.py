"""The isolated project copy ("world") of a replay, with no data from after a date.

The copy has its own git, DVC, MLflow and runtime state. Its source table holds only what was received before the date, so no
stage in it can use later data.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tasks.files import sqlite_uri
from tasks.kinds import data_part, kind_of, replay_part
from tasks.release.snapshot import AUTHOR, command
from tasks.stage import Paths, StageError, read_params

SOURCE = "data/world.parquet"
COLUMNS = ("id", "received", "source", "label")
"""Columns of the world's table, beside the content."""
PREFIXES = ("RESTILL_", "PREFECT_", "MLFLOW_", "BENTOML_")
"""Prefixes of variables that would point the world at the stores of the surrounding project."""
ALLOWED = ("PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_RESULTS_DEFAULT_SERIALIZER", "MLFLOW_DISABLE_TELEMETRY",
           "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "BENTOML_DO_NOT_TRACK")  # fmt: skip


def merged(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` deep-merged with ``changes``. Raises StageError for an unknown name."""
    result = dict(params)
    for name, value in changes.items():
        if name not in result:
            raise StageError(f"replay.params: {name} = {value!r}: there is no such parameter")
        inner = isinstance(value, Mapping) and isinstance(result[name], Mapping)
        result[name] = merged(result[name], value) if inner else value
    return result


def copy_project(root: Path, folder: Path) -> None:
    """Copy every file of ``root`` that git tracks or would track into a new git repository, without ``dvc.lock``."""
    if folder.exists():
        shutil.rmtree(folder)
    for name in command(root, "git", "ls-files", "-co", "--exclude-standard").splitlines():
        if (root / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    command(folder, "git", "init", "--quiet")


def make_world(paths: Paths, folder: Path, rows: pd.DataFrame, changes: Mapping[str, Any]) -> dict[str, str]:
    """Copy the project to ``folder``, with ``rows`` as the workload's source table; the environment for its commands."""
    copy_project(paths.project, folder)
    own = folder / paths.root.relative_to(paths.project)
    (own / SOURCE).parent.mkdir(parents=True, exist_ok=True)
    kind = kind_of(paths)
    rows[[*COLUMNS, *data_part(kind).CONTENT]].to_parquet(own / SOURCE, index=False)
    params = merged(read_params(own), changes)
    params["ingest"] |= {"until": None} | replay_part(kind).ingest_table(SOURCE)
    (own / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    environment = world_environment(folder)
    Path(environment["PREFECT_HOME"]).mkdir(parents=True)  # Prefect creates its home, but not the parent folders
    command(own, "dvc", "add", "--quiet", SOURCE)
    command(folder, "git", "add", "-A")
    command(folder, "git", *AUTHOR, "commit", "--quiet", "--no-verify", "-m", "the world before")
    return environment


def world_environment(folder: Path) -> dict[str, str]:
    """This process's environment, with every store inside the world."""
    variables = {name: value for name, value in os.environ.items() if name in ALLOWED or not name.startswith(PREFIXES)}
    return variables | {
        "RESTILL_HOME": str(folder / "var"),
        "BENTOML_HOME": str(folder / ".bentoml"),
        "PREFECT_HOME": str(folder / "var/prefect"),
        "MLFLOW_TRACKING_URI": sqlite_uri(folder / "mlflow.db"),
    }


def run_in(folder: Path, environment: Mapping[str, str], log: Path, *words: str) -> None:
    """Run a command in the world, its output in ``log``. Raises StageError with its last line if it fails."""
    with log.open("ab") as output:
        code = subprocess.run(words, cwd=folder, env=dict(environment), stdout=output, stderr=output, check=False).returncode
    if code:
        last = [line for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()][-1:]
        raise StageError(f"{' '.join(words[-3:])} ended with {code}: {''.join(last)} (all of it: {log})")
