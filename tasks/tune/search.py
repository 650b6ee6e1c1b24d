"""The search over the student's parameters for size, latency and PR-AUC on valid; test, golden and future are never used.

A trial is pruned where it is below the median of the others and not good enough to be chosen (Golovin et al. 2017); Optuna
has no pruner for several objectives. A trial that fails a gate of its stage is infeasible: the pipeline would fail too.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import mlflow
import optuna
from optuna.trial import TrialState
from pydantic import Field
from tqdm import tqdm

from tasks.files import atomic_write
from tasks.stage import Paths, Settings, StageError
from tasks.tune import studies
from tasks.tune.front import Point, Tolerances, choose, front
from tasks.tune.runs import study_run, trial_run
from tasks.tune.space import Axis, apply_point, check, present_point, read_point
from tasks.tune.trial import Measurement, Step, Timing, Workspace, measure, run_steps

REPEATS = 20
"""Consecutive points already tried, after which the space counts as exhausted."""
REFERENCE_LATENCY = "pace"
"""Study attribute: microseconds per input of the study's first student."""


class Warmup(Settings):
    """Conditions before pruning starts."""

    trials: int = Field(ge=1)
    """Minimum number of finished trials to compare with."""
    epochs: int = Field(ge=0)
    """Initial epochs of a trial without pruning."""


class Tune(Settings):
    seconds: float = Field(gt=0)
    """Time limit of one search. No trial is started that is unlikely to end within it."""
    seed: int
    variant: str
    """The folder below models/ that is measured: the servable variant."""
    margin: float = Field(ge=0)
    """How far below the teacher's PR-AUC on valid a chosen point may be."""
    choose: Literal["smallest", "fastest"]
    """Which point is chosen among those of the front that are good enough."""
    alike: Tolerances
    """Differences that the front regards as noise."""
    timing: Timing
    warmup: Warmup
    space: dict[str, Axis] = Field(min_length=1)
    """Dotted parameter name -> ``{low, high}``, with ``log: true`` for a log scale, or ``{choices: [...]}``."""


class Search:
    """The state of a search: the workspace of its trials, and their study.

    ``params`` is all of params.yaml, ``steps`` the stages of a trial in order, ``needs`` the files they read.
    Raises StageError for an invalid space or a missing file.
    """

    def __init__(
        self, settings: Tune, paths: Paths, params: dict[str, Any], steps: Sequence[Step], needs: Sequence[str]
    ) -> None:
        check(settings.space, params, {step.name: step.settings for step in steps})
        self.settings = settings
        self.present = present_point(settings.space, params)
        self.workspace = Workspace(paths, params, steps, needs, settings.variant, settings.timing)
        self.min_pr_auc = self.workspace.teacher_quality() - settings.margin
        first = {name: axis.ends[0] for name, axis in settings.space.items()}
        inputs = {
            "files": self.workspace.hashes(),
            "space": {name: axis.model_dump() for name, axis in settings.space.items()},
            "fixed": {step.name: apply_point(params, first)[step.name] for step in steps},
            "variant": settings.variant,
            "timing": settings.timing.model_dump(),
        }
        self.study = studies.open_study(self.workspace.folder, studies.study_name(inputs), settings.seed)

    @property
    def points(self) -> list[Point]:
        return studies.points(self.study, self.settings.space)

    @property
    def front(self) -> list[Point]:
        return front(self.points, self.settings.alike)

    @property
    def chosen(self) -> Point | None:
        return choose(self.points, self.settings.choose, self.min_pr_auc, self.settings.alike)


class TrialPruner:
    """Prunes a trial that is below the median. Epochs are counted over all training stages of a trial."""

    def __init__(self, search: Search, progress: SearchProgress) -> None:
        self.curve: list[float] = []
        self._curves = [trial.user_attrs[studies.CURVE] for trial in studies.finished(search.study)]
        self._min_pr_auc, self._warmup, self._progress = search.min_pr_auc, search.settings.warmup, progress

    def __call__(self, epoch: int, pr_auc: float) -> None:
        self.curve.append(pr_auc)
        self._progress.tick()
        if len(self._curves) < self._warmup.trials or len(self.curve) <= self._warmup.epochs:
            return
        # A trial good enough to be chosen continues, even if others are better: it may be the smallest.
        if max(self.curve) < self._min_pr_auc and studies.is_below_median(self.curve, self._curves):
            raise optuna.TrialPruned(f"epoch {len(self.curve)}: PR-AUC {max(self.curve):.4f} is below the median")


class SearchProgress:
    """A progress bar of the search's time."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.monotonic(), seconds
        self._bar = tqdm(total=round(seconds), desc="tune", bar_format="{l_bar}{bar}| {n:.0f}/{total} s{postfix}")

    @property
    def left(self) -> float:
        return self._start + self._seconds - time.monotonic()

    def tick(self, **postfix: Any) -> None:
        if postfix:
            self._bar.set_postfix(postfix, refresh=False)
        self._bar.n = min(self._seconds - self.left, self._seconds)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def run_trials(search: Search, seconds: float, limit: int | None = None) -> str:
    """Run trials until the time is up, ``limit`` have run, or no new points are found; the id of the MLflow run.

    Call from one process at a time. A killed search resumes, and the interrupted trial is repeated.
    """
    study, space = search.study, search.settings.space
    studies.retry_killed(study)
    studies.enqueue(study, space, search.present)
    progress = SearchProgress(seconds)
    count = repeats = 0
    with study_run(search.workspace.paths, study.study_name) as run:
        try:
            while (limit is None or count < limit) and repeats < REPEATS and progress.left > studies.typical_seconds(study):
                trial = study.ask({name: axis.distribution for name, axis in space.items()})
                if (duplicate := studies.find_trial(study, space, read_point(space, trial.params))) is not None:
                    trial.set_user_attr(studies.REASON, f"the same as trial {duplicate}")
                    study.tell(trial, state=TrialState.FAIL)
                    repeats += 1
                    continue
                progress.tick(trial=trial.number, finished=len(studies.finished(study)))
                run_trial(search, trial, run, progress)
                count, repeats = count + 1, 0
        finally:
            progress.close()
    return run


def run_trial(search: Search, trial: optuna.Trial, parent_run: str, progress: SearchProgress) -> None:
    """Run one trial and report it to the study and to MLflow. Unexpected errors are raised again."""
    study, pruner = search.study, TrialPruner(search, progress)
    values = read_point(search.settings.space, trial.params)
    try:
        key = f"{study.study_name}/{trial.number}/{trial.datetime_start}"  # a new study numbers its trials from 0 again
        with trial_run(search.workspace.paths, key, f"trial {trial.number}", parent_run) as run:
            mlflow.log_params(values, run_id=run)
            folder = run_steps(search.workspace, apply_point(search.workspace.params, values), pruner)
            measurement = measure_student(search, folder)
            mlflow.log_metrics({name: float(value) for name, value in asdict(measurement).items()}, run_id=run)
    except (optuna.TrialPruned, StageError) as error:
        trial.set_user_attr(studies.OUTCOME, studies.INFEASIBLE if isinstance(error, StageError) else studies.STOPPED)
        trial.set_user_attr(studies.REASON, str(error))
        study.tell(trial, state=TrialState.PRUNED)  # so that the sampler avoids this region
    except Exception as error:  # recorded as failed, so that the next search does not start with it, and raised
        trial.set_user_attr(studies.REASON, repr(error))
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        trial.set_user_attr(studies.CURVE, pruner.curve)
        study.tell(trial, [measurement.bytes, measurement.latency_us, measurement.pr_auc])


def measure_student(search: Search, folder: Path) -> Measurement:
    """The measurement of the student in ``folder``. A study's first student is the timing reference of all others."""
    study = search.study
    reference = search.workspace.folder / "clocks" / study.study_name
    if reference.exists() and REFERENCE_LATENCY in study.user_attrs:
        return measure(search.workspace, folder, reference, study.user_attrs[REFERENCE_LATENCY])
    measurement = measure(search.workspace, folder, folder, None)
    with atomic_write(reference) as temporary:
        shutil.copytree(folder, temporary)
    study.set_user_attr(REFERENCE_LATENCY, measurement.latency_us)
    return measurement
