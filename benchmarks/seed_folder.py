"""The scratch project of one seed for ``benchmarks.seeds``: links to the data, its parameters, and the stages run in it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.seed_path import FIRST, Step, due, keys, path_inputs, read_path, with_seed
from tasks.files import atomic_write, read_json, write_json
from tasks.model.variants import load_variant
from tasks.release.evaluate import Evaluate, Floats32
from tasks.replay.world import run_in, world_environment
from tasks.stage import Paths, StageError, read_params, read_settings
from tasks.tracking import INVOCATION_VARIABLE

BASELINE = "baseline"
LOGITS = "teacher.npz"
"""A seed's teacher logits on all messages; kept even if the teacher is deleted."""


@dataclass(frozen=True)
class Project:
    """Data and settings common to all seeds."""

    paths: Paths
    params: dict[str, Any]
    path: list[Step]
    rows: pd.DataFrame
    labels: dict[str, Any]
    """``data/schema.json``."""

    @property
    def settings(self) -> Evaluate:
        """Settings of the stage evaluate, with a minimal bootstrap: here the interval is over seeds."""
        return read_settings(Evaluate, "evaluate", self.params).model_copy(update={"resamples": 10})

    @property
    def teacher(self) -> str:
        return self.path[0].models[0]

    @property
    def students(self) -> list[str]:
        return [name for step in self.path[1:] for name in step.models]


def read(root: Path) -> Project:
    """The project in ``root``. Raises StageError where its pipeline has not been run."""
    paths, params = Paths(root), read_params(root)
    path = read_path(root, params)
    for needed in [*path_inputs(path), f"models/{BASELINE}"]:
        if not (root / needed).exists():
            raise StageError(f"{needed} is missing: `make run` makes it")
    return Project(paths, params, path, pd.read_parquet(paths.prepared), read_json(paths.schema))


class Folder:
    """One seed's scratch project."""

    def __init__(self, project: Project, home: Path, seed: int) -> None:
        self.project, self.seed = project, seed
        self.root = home.absolute() / str(seed)
        self.params = with_seed(project.params, project.path, seed)
        self.keys = keys(project.path, self.params, project.paths.root)
        self.done: dict[str, str] = read_json(self._done) if self._done.exists() else {}

    @property
    def _done(self) -> Path:
        return self.root / "done.json"

    def todo(self) -> list[Step]:
        """The due stages; the teacher itself is needed only until its logits are stored."""
        needed = {f"models/{name}" for name in self.project.students}
        if self.done.get(LOGITS) != self.keys[FIRST]:
            needed.add(f"models/{self.project.teacher}")
        existing = {name for step in self.project.path for name in (*step.outs, *step.deps) if (self.root / name).exists()}
        return due(self.project.path, self.keys, self.done, existing | set(path_inputs(self.project.path)), needed)

    def prepare(self) -> None:
        """Create the links to the data, and write the parameters of this seed."""
        for name in path_inputs(self.project.path):
            link = self.root / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to((self.project.paths.root / name).absolute())
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False), encoding="utf-8")

    def run(self, step: Step) -> None:
        """Run one stage as a command. Raises StageError with its last line if it fails."""
        self._record(step.name, None)
        environment = world_environment(self.root) | {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            INVOCATION_VARIABLE: f"seed {self.seed}",
        }
        run_in(self.root, environment, self.root / "stages.log", sys.executable, "-m", step.module)
        self._record(step.name, self.keys[step.name])

    def store_teacher_logits(self) -> None:
        """Store the teacher's logits on all messages."""
        if self.done.get(LOGITS) == self.keys[FIRST]:
            return
        logits = self._compute_logits(self.project.teacher)
        with atomic_write(self.root / LOGITS) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=self.project.rows.id.to_numpy(dtype=str), logits=logits)
        self._record(LOGITS, self.keys[FIRST])

    def logits(self) -> dict[str, Floats32]:
        """Model -> logits on all messages, for the teacher and every student. Folders without variant.json are no models."""
        with np.load(self.root / LOGITS) as stored:
            teacher_logits = {self.project.teacher: stored["logits"]}
        models = [name for name in self.project.students if (self.root / f"models/{name}/variant.json").exists()]
        return teacher_logits | {name: self._compute_logits(name) for name in models}

    def drop_teacher(self) -> None:
        shutil.rmtree(self.root / "models" / self.project.teacher, ignore_errors=True)

    def _compute_logits(self, model: str) -> Floats32:
        loaded = load_variant(self.root / "models" / model, self.project.settings.threads)
        return loaded.logits(list(self.project.rows.input))

    def _record(self, name: str, key: str | None) -> None:
        self.done = {other: value for other, value in self.done.items() if other != name} | ({name: key} if key else {})
        write_json(self._done, self.done)
