"""One trial of a search: the student's stages with other parameters, in a folder of their own, and what came of it.

A search looks at train and valid alone. The copy of the data that trials work on holds no other row, so no stage in it
can look at test, golden or future, however it is written.
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

from service.release import hash_files
from service.text import Normaliser
from tasks.compress.distillation import teacher_logits
from tasks.compress.sgd import Watch
from tasks.lineage import sha256
from tasks.metrics import ranking
from tasks.model.variants import load_variant
from tasks.release.evaluate import latency_us
from tasks.stage import Paths, Settings, StageError, atomic_write, folder_bytes, read_json, read_settings

LEARNED_FROM = ("train", "valid", "unlabelled")
"""The splits that a search may see."""


class Timing(Settings):
    """How the time of a message is taken."""

    messages: int = Field(ge=1)
    """Of valid."""
    rounds: int = Field(ge=1)


@dataclass(frozen=True)
class Step:
    """A stage that a trial runs."""

    name: str
    stage: Callable[..., None]
    """``stage(settings, paths)``; one that learns may take a ``watch`` too."""
    settings: type[Settings]


@dataclass(frozen=True)
class Measured:
    """What came of a trial. It is measured on valid."""

    bytes: int
    latency_us: float
    pr_auc: float


class Ground:
    """What all trials stand on: the project's files as they are now, without the splits that choose nothing.

    ``variant`` is the folder below models/ that is measured; ``needs`` are the files and folders that the steps read and
    do not make. Raises StageError where one of them is not there.
    """

    def __init__(
        self, root: Path, params: Mapping[str, Any], steps: Sequence[Step], needs: Sequence[str], variant: str, timing: Timing
    ) -> None:
        for name in needs:
            if not (root / name).exists():
                raise StageError(f"{name}: not there yet; `make run` makes it")
        self.root, self.params, self.steps, self.variant, self.timing = root, params, steps, variant, timing
        self.paths = Paths(root)
        self.folder = self.paths.home / "tune"
        seen = self.folder / "seen.parquet"
        rows = pd.read_parquet(self.paths.prepared, filters=[("split", "in", LEARNED_FROM)]).reset_index(drop=True)
        with atomic_write(seen) as temporary:
            rows.to_parquet(temporary)
        self.valid = rows[rows.split == "valid"]
        self.schema = read_json(self.paths.schema)
        prepared = str(self.paths.prepared.relative_to(root))
        self._files = {name: seen if name == prepared else (root / name).resolve() for name in needs}

    def hashes(self) -> dict[str, Any]:
        """What is in the files, those with the steps' code among them: the same hashes, the same world."""
        return {name: hash_files(path) if path.is_dir() else sha256(path) for name, path in sorted(self._files.items())}

    def clear(self) -> Paths:
        """An empty project for a trial, in which the files that the steps need are links."""
        scratch = self.folder / "trial"
        if scratch.exists():
            shutil.rmtree(scratch)
        for name, path in self._files.items():
            if path.suffix != ".py":
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).symlink_to(path)
        return Paths(scratch)

    def quality(self, logits: Any) -> float:
        """PR-AUC on valid, each message by its weight."""
        positive = None if self.schema["positive"] is None else self.schema["labels"].index(self.schema["positive"])
        weights = self.valid.weight.to_numpy(dtype=np.float64)
        return ranking(logits, self.valid.label_id.to_numpy(), positive, weights=weights)["pr_auc"]

    def teacher_quality(self) -> float:
        return self.quality(teacher_logits(self.paths, list(self.valid.id)))


def run_steps(ground: Ground, params: Mapping[str, Any], watch: Watch) -> Path:
    """Run the steps with ``params``, their output in ``tune.log``; the folder of the variant that they made.

    Raises StageError where a step breaks its gate, and what ``watch`` raises.
    """
    paths = ground.clear()
    with (ground.folder / "tune.log").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        for step in ground.steps:
            settings = read_settings(step.settings, step.name, dict(params))
            told = {"watch": watch} if "watch" in inspect.signature(step.stage).parameters else {}
            step.stage(settings, paths, **told)
            report = paths.report(f"{step.name}.json")
            if over := read_json(report).get("over") if report.exists() else None:
                raise StageError(f"{step.name} does not agree with its parent: {'; '.join(over)}")
    return paths.model(ground.variant)


def measure(ground: Ground, folder: Path, clock: Path, pace: float | None) -> Measured:
    """Size, time and quality of the student in ``folder``.

    Its time is taken in turns with that of ``clock``, a student that all trials of a search are timed with, and told as
    if that one had taken ``pace`` microseconds again: what else the machine does slows both. None: as it was taken.
    """
    one = load_variant(folder, 1)
    raw = ground.valid.raw
    texts = list(raw.sample(min(ground.timing.messages, len(raw)), random_state=0))  # the same for all
    normaliser = Normaliser.from_settings(ground.schema["normaliser"])
    with (ground.folder / "tune.log").open("a", encoding="utf-8") as log, redirect_stderr(log):
        taken = latency_us({"trial": one, "clock": load_variant(clock, 1)}, normaliser, texts, ground.timing.rounds)
    latency = taken["trial"] if pace is None else round(taken["trial"] / taken["clock"] * pace, 1)
    return Measured(folder_bytes(folder), latency, ground.quality(one.logits(list(ground.valid.text))))
