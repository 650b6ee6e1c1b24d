"""A search over the student's parameters: small, fast, good, as far as valid can tell. Test, golden and future are never
looked at.

A trial is pruned early where it is behind most others and not yet good enough to be chosen (Golovin et al. 2017); Optuna
has no pruner for several objectives. What breaks a gate of its stage is infeasible: the graph would not make it either.
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

from tasks.stage import Settings, StageError, atomic_write
from tasks.tune import memory
from tasks.tune.front import Alike, Point, choose, front
from tasks.tune.runs import study_run, trial_run
from tasks.tune.space import Axis, changed, check, present_point, read_point
from tasks.tune.trial import Ground, Measured, Step, Timing, measure, run_steps

REPEATS = 20
"""Points in a row that were tried before, after which a space holds nothing new."""
PACE = "pace"
"""What a study remembers of the time that its first student took."""


class Warmup(Settings):
    """What is not stopped early."""

    trials: int = Field(ge=1)
    """Finished trials with which a later one is compared, at least."""
    epochs: int = Field(ge=0)
    """First epochs of a trial."""


class Tune(Settings):
    seconds: float = Field(gt=0)
    """Time of one search. No trial is begun that is not likely to end within it."""
    seed: int
    variant: str
    """The folder below models/ that is measured: what may be served."""
    margin: float = Field(ge=0)
    """How far the PR-AUC on valid of a chosen point may be below the teacher's."""
    choose: Literal["smallest", "fastest"]
    """Which of the front is chosen of those that are good enough."""
    alike: Alike
    """What the front takes for equal."""
    timing: Timing
    warmup: Warmup
    space: dict[str, Axis] = Field(min_length=1)
    """Dotted names of parameters: ``{low, high}``, with ``log: true`` in ratios, or ``{choices: [...]}``."""


class Search:
    """A search as it stands: what its trials stand on, and what they found.

    ``params`` is the whole of params.yaml, ``steps`` the stages of a trial in their order, ``needs`` what they read.
    Raises StageError where the space or a file is not as it must be.
    """

    def __init__(self, settings: Tune, root: Path, params: dict[str, Any], steps: Sequence[Step], needs: Sequence[str]) -> None:
        check(settings.space, params, {step.name: step.settings for step in steps})
        self.settings = settings
        self.present = present_point(settings.space, params)
        self.ground = Ground(root, params, steps, needs, settings.variant, settings.timing)
        self.least = self.ground.teacher_quality() - settings.margin
        first = {name: axis.ends[0] for name, axis in settings.space.items()}
        world = {
            "files": self.ground.hashes(),
            "space": {name: axis.model_dump() for name, axis in settings.space.items()},
            "fixed": {step.name: changed(params, first)[step.name] for step in steps},
            "variant": settings.variant,
            "timing": settings.timing.model_dump(),
        }
        self.study = memory.open_study(self.ground.folder, memory.study_name(world), settings.seed)

    @property
    def points(self) -> list[Point]:
        return memory.points(self.study, self.settings.space)

    @property
    def front(self) -> list[Point]:
        return front(self.points, self.settings.alike)

    @property
    def chosen(self) -> Point | None:
        return choose(self.points, self.settings.choose, self.least, self.settings.alike)


class TrialPruner:
    """Ends a trial that is behind. Its epochs are those of all stages that learn, one after the other."""

    def __init__(self, search: Search, progress: SearchProgress) -> None:
        self.curve: list[float] = []
        self._others = [trial.user_attrs[memory.CURVE] for trial in memory.finished(search.study)]
        self._least, self._warmup, self._progress = search.least, search.settings.warmup, progress

    def __call__(self, epoch: int, pr_auc: float) -> None:
        self.curve.append(pr_auc)
        self._progress.tick()
        if len(self._others) < self._warmup.trials or len(self.curve) <= self._warmup.epochs:
            return
        # What is good enough to be chosen goes on, however many are better: it may be the smallest.
        if max(self.curve) < self._least and memory.is_behind(self.curve, self._others):
            raise optuna.TrialPruned(f"epoch {len(self.curve)}: PR-AUC {max(self.curve):.4f} is below the median")


class SearchProgress:
    """The time of a search as a bar."""

    def __init__(self, seconds: float) -> None:
        self._start, self._seconds = time.monotonic(), seconds
        self._bar = tqdm(total=round(seconds), desc="tune", bar_format="{l_bar}{bar}| {n:.0f}/{total} s{postfix}")

    @property
    def left(self) -> float:
        return self._start + self._seconds - time.monotonic()

    def tick(self, **words: Any) -> None:
        if words:
            self._bar.set_postfix(words, refresh=False)
        self._bar.n = min(self._seconds - self.left, self._seconds)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


def run_trials(search: Search, seconds: float, limit: int | None = None) -> str:
    """Run trials until the time is over, ``limit`` have run, or nothing new is found to try; the id of its MLflow run.

    To be called by one process at a time. A killed search goes on where it was; the trial that it was at begins anew.
    """
    study, space = search.study, search.settings.space
    memory.retry_dead(study)
    memory.put_in(study, space, search.present)
    progress = SearchProgress(seconds)
    ran = repeats = 0
    with study_run(search.ground.root, study.study_name) as run:
        try:
            while (limit is None or ran < limit) and repeats < REPEATS and progress.left > memory.typical_seconds(study):
                trial = study.ask({name: axis.distribution for name, axis in space.items()})
                if (known := memory.earlier(study, space, read_point(space, trial.params))) is not None:
                    trial.set_user_attr(memory.REASON, f"the same as trial {known}")
                    study.tell(trial, state=TrialState.FAIL)
                    repeats += 1
                    continue
                progress.tick(trial=trial.number, finished=len(memory.finished(study)))
                run_trial(search, trial, run, progress)
                ran, repeats = ran + 1, 0
        finally:
            progress.close()
    return run


def run_trial(search: Search, trial: optuna.Trial, above: str, progress: SearchProgress) -> None:
    """One trial to its end, told to the study and to MLflow. An error that is none of the user's is raised again."""
    study, watch = search.study, TrialPruner(search, progress)
    values = read_point(search.settings.space, trial.params)
    try:
        key = f"{study.study_name}/{trial.number}/{trial.datetime_start}"  # a study that begins anew counts from 0 again
        with trial_run(search.ground.root, key, f"trial {trial.number}", above) as run:
            mlflow.log_params(values, run_id=run)
            folder = run_steps(search.ground, changed(search.ground.params, values), watch)
            found = timed(search, folder)
            mlflow.log_metrics({name: float(value) for name, value in asdict(found).items()}, run_id=run)
    except (optuna.TrialPruned, StageError) as error:
        trial.set_user_attr(memory.OUTCOME, memory.INFEASIBLE if isinstance(error, StageError) else memory.STOPPED)
        trial.set_user_attr(memory.REASON, str(error))
        study.tell(trial, state=TrialState.PRUNED)  # the sampler then knows that it is no good place
    except Exception as error:  # told, so that the next search does not begin with it, and raised
        trial.set_user_attr(memory.REASON, repr(error))
        study.tell(trial, state=TrialState.FAIL)
        raise
    else:
        trial.set_user_attr(memory.CURVE, watch.curve)
        study.tell(trial, [found.bytes, found.latency_us, found.pr_auc])


def timed(search: Search, folder: Path) -> Measured:
    """The student in ``folder``, measured. The first of a study becomes the clock of all."""
    study = search.study
    clock = search.ground.folder / "clocks" / study.study_name
    if clock.exists() and PACE in study.user_attrs:
        return measure(search.ground, folder, clock, study.user_attrs[PACE])
    found = measure(search.ground, folder, folder, None)
    with atomic_write(clock) as temporary:
        shutil.copytree(folder, temporary)
    study.set_user_attr(PACE, found.latency_us)
    return found
