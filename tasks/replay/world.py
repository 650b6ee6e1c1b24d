"""A world of its own for a replay: a copy of the project that knows nothing of what came after a date.

The copy has its own git, DVC, MLflow and runtime state. Its source table holds only what was received before the date,
so no stage in it can look ahead, however it is called.
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

from tasks.release.snapshot import AUTHOR, command
from tasks.stage import StageError, sqlite_uri

SOURCE = "data/world.parquet"
COLUMNS = ("id", "received", "source", "label", "subject", "text")
OWN = ("RESTILL_", "PREFECT_", "MLFLOW_", "BENTOML_")
"""Variables that would tie the world to the stores of the project around it."""
KEPT = ("PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_RESULTS_DEFAULT_SERIALIZER", "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "BENTOML_DO_NOT_TRACK")  # fmt: skip


def merged(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with ``changes`` laid over it, block by block. Raises StageError for a name that is not there."""
    result = dict(params)
    for name, value in changes.items():
        if name not in result:
            raise StageError(f"replay.params: {name} = {value!r}: there is no such parameter")
        inner = isinstance(value, Mapping) and isinstance(result[name], Mapping)
        result[name] = merged(result[name], value) if inner else value
    return result


def copy_project(root: Path, folder: Path) -> None:
    """Every file of ``root`` that git holds or would hold, as a git repository of its own, with DVC's cache apart."""
    if folder.exists():
        shutil.rmtree(folder)
    for name in command(root, "git", "ls-files", "-co", "--exclude-standard").splitlines():
        if (root / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    command(folder, "git", "init", "--quiet")


def make_world(root: Path, folder: Path, known: pd.DataFrame, changes: Mapping[str, Any]) -> dict[str, str]:
    """A fresh world in ``folder`` that knows the messages ``known``; the environment in which its commands run."""
    copy_project(root, folder)
    (folder / SOURCE).parent.mkdir(parents=True, exist_ok=True)
    known[list(COLUMNS)].to_parquet(folder / SOURCE, index=False)
    params = merged(yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")), changes)
    names = {name: name for name in COLUMNS}
    params["ingest"] |= {"source": "table", "path": SOURCE, "until": None, "labels": {}, "label_table": None, "columns": names}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    environment = world_environment(folder)
    Path(environment["PREFECT_HOME"]).mkdir(parents=True)  # Prefect makes its home, but not what lies above it
    command(folder, "dvc", "add", "--quiet", SOURCE)
    command(folder, "git", "add", "-A")
    command(folder, "git", *AUTHOR, "commit", "--quiet", "--no-verify", "-m", "the world before")
    return environment


def world_environment(folder: Path) -> dict[str, str]:
    """This process's environment, but with every store inside the world."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(OWN)}
    return kept | {
        "RESTILL_HOME": str(folder / "var"),
        "BENTOML_HOME": str(folder / ".bentoml"),
        "PREFECT_HOME": str(folder / "var/prefect"),
        "MLFLOW_TRACKING_URI": sqlite_uri(folder / "mlflow.db"),
    }


def run_in(folder: Path, environment: Mapping[str, str], log: Path, *words: str) -> None:
    """Run a command of the project in the world, its output in ``log``. Raises StageError with its last line."""
    with log.open("ab") as out:
        code = subprocess.run(words, cwd=folder, env=dict(environment), stdout=out, stderr=out, check=False).returncode
    if code:
        last = [line for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()][-1:]
        raise StageError(f"{' '.join(words[-3:])} ended with {code}: {''.join(last)} (all of it: {log})")
