"""The memory of a search: an Optuna study in a file, which a search that is started again goes on with.

Its name is a hash of what its trials stand on: other data, another teacher, other code or another space is another
study, whose figures would not compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tasks.stage import sqlite_uri
from tasks.tune.front import Point
from tasks.tune.space import Space, read_point, write_point

DIRECTIONS = (StudyDirection.MINIMIZE, StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
"""Of bytes, microseconds a message, PR-AUC on valid."""
ATTEMPTS = 3
"""How often a point is begun whose trial was killed: it may be the point that kills."""
CURVE, OUTCOME, REASON, TRIED = "curve", "outcome", "reason", "tried"
STOPPED, INFEASIBLE = "stopped early", "broke a gate"


def study_name(world: Mapping[str, Any]) -> str:
    """The name of the study of this world: what its trials read, the space, the parameters that stay."""
    return "tune-" + hashlib.sha256(json.dumps(world, sort_keys=True).encode()).hexdigest()[:12]


def open_study(folder: Path, name: str, seed: int) -> optuna.Study:
    """The study of this name, new or as it was left.

    The sampler is TPE, for several objectives as in Ozaki et al. (2020): a search has a hundred trials, which are two
    generations of NSGA-II. Each start draws with a seed of its own, or it would repeat the last.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=sqlite_uri(folder / "optuna.db"), study_name=name, directions=DIRECTIONS, load_if_exists=True
    )
    study.sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed + len(study.trials))
    return study


def retry_dead(study: optuna.Study) -> list[int]:
    """End the trials that say RUNNING, and put their points in again; their numbers.

    To be called by the one search that is at work: what runs by the book then runs in no process.
    """
    dead = study.get_trials(states=(TrialState.RUNNING,))
    for trial in dead:
        study.tell(trial.number, state=TrialState.FAIL)
        tried = int(trial.user_attrs.get(TRIED, 1))
        if trial.params and tried < ATTEMPTS:
            study.enqueue_trial(trial.params, user_attrs={TRIED: tried + 1})
    return [trial.number for trial in dead]


def earlier(study: optuna.Study, space: Space, values: Mapping[str, Any]) -> int | None:
    """The trial that came to an end with this point; None where none did."""
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if read_point(space, trial.params) == values:
            return trial.number
    return None


def put_in(study: optuna.Study, space: Space, values: Mapping[str, Any]) -> None:
    """Let this point be the next, unless a trial ended with it, or it waits already."""
    if earlier(study, space, values) is None:
        study.enqueue_trial(write_point(space, values), skip_if_exists=True)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def points(study: optuna.Study, space: Space) -> list[Point]:
    """The finished trials: those that ended early or broke a gate have no figures, and cannot be chosen."""
    return [
        Point(trial.number, int(trial.values[0]), trial.values[1], trial.values[2], read_point(space, trial.params))
        for trial in finished(study)
    ]


def is_behind(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """The median rule of Golovin et al. (2017): the best so far is below the median of ``others`` at the same epoch."""
    there = [other[len(curve) - 1] for other in others if len(other) >= len(curve)]
    return bool(there) and max(curve) < float(np.median(there))


def outcome(trial: FrozenTrial) -> tuple[str, str]:
    """How a trial ended, and why."""
    words = {TrialState.COMPLETE: "finished", TrialState.FAIL: "failed"}
    word = words.get(trial.state, trial.state.name.lower())
    return trial.user_attrs.get(OUTCOME, word), trial.user_attrs.get(REASON, "killed" if word == "failed" else "")


def typical_seconds(study: optuna.Study) -> float:
    """The median time of a finished trial; 0 where there is none."""
    times = [trial.duration.total_seconds() for trial in finished(study) if trial.duration]
    return float(np.median(times)) if times else 0.0
