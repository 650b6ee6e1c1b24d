"""One trial of a search: runs the student's stages with other parameters in a scratch folder, and measures the result.

A search uses train, valid and unlabelled rows only. The trials' copy of the data holds no others, so no stage can use test,
golden or future, however it is written.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from service.decision import positive_index
from service.kinds import serving_class
from service.release import hash_files
from tasks.compress.distillation import teacher_logits
from tasks.compress.sgd import Watch
from tasks.files import atomic_write, folder_bytes, read_json
from tasks.lineage import sha256
from tasks.metrics import ranking
from tasks.model.variants import load_variant
from tasks.release.evaluate import latency_us
from tasks.stage import Paths, Settings, StageError, read_settings

SEARCH_SPLITS = ("train", "valid", "unlabelled")
"""The splits that a search may use."""


class Timing(Settings):
    """How the latency per input is measured."""

    inputs: int = Field(ge=1)
    """Number of inputs of valid."""
    rounds: int = Field(ge=1)


@dataclass(frozen=True)
class Step:
    """A stage that a trial runs."""

    name: str
    stage: Callable[..., None]
    """``stage(settings, paths)``; a training stage may also take ``watch``."""
    settings: type[Settings]


@dataclass(frozen=True)
class Measurement:
    """The figures of a trial, measured on valid."""

    bytes: int
    latency_us: float
    pr_auc: float


def is_code(name: str) -> bool:
    """Whether a dependency is code of the project: it lies outside of the workload's folder."""
    return name.startswith("../")


def hash_of(path: Path) -> Any:
    return hash_files(path) if path.is_dir() else sha256(path)


def hash_code(path: Path) -> Any:
    """SHA-256 of the modules in ``path``, or of the file."""
    return {str(file.relative_to(path)): sha256(file) for file in sorted(path.rglob("*.py"))} if path.is_dir() else sha256(path)


class Workspace:
    """The common inputs of all trials: the project's current files, without the splits that must not be used.

    ``variant`` is the folder below models/ that is measured; ``needs`` are the files and folders that the steps read but do
    not create. Raises StageError where one of them is missing.
    """

    def __init__(
        self, paths: Paths, params: Mapping[str, Any], steps: Sequence[Step], needs: Sequence[str], variant: str, timing: Timing
    ) -> None:
        for name in needs:
            if not (paths.root / name).exists():
                raise StageError(f"{name}: not there yet; `make run` makes it")
        self.paths, self.params, self.steps, self.variant, self.timing = paths, params, steps, variant, timing
        self.folder = self.paths.home / "tune"
        data = self.folder / "seen.parquet"
        rows = pd.read_parquet(self.paths.prepared, filters=[("split", "in", SEARCH_SPLITS)]).reset_index(drop=True)
        with atomic_write(data) as temporary:
            rows.to_parquet(temporary)
        self.valid = rows[rows.split == "valid"]
        self.schema = read_json(self.paths.schema)
        prepared = str(self.paths.prepared.relative_to(paths.root))
        self._files = {name: data if name == prepared else (paths.root / name).resolve() for name in needs}

    def hashes(self) -> dict[str, Any]:
        """Hashes of all input files, including the code of the steps."""
        return {name: hash_code(path) if is_code(name) else hash_of(path) for name, path in sorted(self._files.items())}

    def create_project(self) -> Paths:
        """A fresh project folder for a trial, with links to the files that the steps need."""
        scratch = self.folder / "trial"
        if scratch.exists():
            shutil.rmtree(scratch)
        for name, path in self._files.items():
            if not is_code(name):
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).symlink_to(path)
        return Paths(scratch)

    def quality(self, logits: Any) -> float:
        """Weighted PR-AUC on valid."""
        positive = positive_index(self.schema)
        weights = self.valid.weight.to_numpy(dtype=np.float64)
        return ranking(logits, self.valid.label_id.to_numpy(), positive, weights=weights)["pr_auc"]

    def teacher_quality(self) -> float:
        return self.quality(teacher_logits(self.paths, list(self.valid.id)))


def run_steps(workspace: Workspace, params: Mapping[str, Any], watch: Watch) -> Path:
    """Run the steps with ``params``, their output in ``tune.log``; the folder of the resulting variant.

    Raises StageError where a step fails its gate, and whatever ``watch`` raises.
    """
    paths = workspace.create_project()
    with (workspace.folder / "tune.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        for step in workspace.steps:
            settings = read_settings(step.settings, step.name, dict(params))
            options = {"watch": watch} if "watch" in inspect.signature(step.stage).parameters else {}
            step.stage(settings, paths, **options)
            report = paths.report(f"{step.name}.json")
            if over := read_json(report).get("over") if report.exists() else None:
                raise StageError(f"{step.name} does not agree with its parent: {'; '.join(over)}")
    return paths.model(workspace.variant)


def measure(workspace: Workspace, folder: Path, reference: Path, reference_latency: float | None) -> Measurement:
    """Size, latency and quality of the student in ``folder``.

    Its latency is measured in turns with that of ``reference``, a student common to all trials, and scaled as if that one had
    taken ``reference_latency`` microseconds again, because other load slows both. None: unscaled.
    """
    student = load_variant(folder, 1)
    raw = workspace.valid.raw
    timed = list(raw.sample(min(workspace.timing.inputs, len(raw)), random_state=0))  # the same for all
    preprocess = serving_class(workspace.schema["kind"])(workspace.schema).preprocess
    with (workspace.folder / "tune.log").open("a", encoding="utf-8") as log, redirect_stderr(log):
        latencies = latency_us(
            {"trial": student, "reference": load_variant(reference, 1)}, preprocess, timed, workspace.timing.rounds
        )
    latency = latencies["trial"]
    if reference_latency is not None:
        latency = round(latency / latencies["reference"] * reference_latency, 1)
    return Measurement(folder_bytes(folder), latency, workspace.quality(student.logits(list(workspace.valid.input))))
