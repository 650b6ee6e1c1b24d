"""Persistent Optuna studies: storage, resumption, and the median pruning rule of a search.

A study's name is a hash of its inputs: other data, another teacher, other code or another space make a new study, as figures
would not be comparable.
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

from tasks.files import sqlite_uri
from tasks.tune.front import Point
from tasks.tune.space import Space, read_point, write_point

DIRECTIONS = (StudyDirection.MINIMIZE, StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
"""Of bytes, microseconds an input, PR-AUC on valid."""
ATTEMPTS = 3
"""Maximum number of attempts at a point whose trials get killed: the point may be the cause."""
CURVE, OUTCOME, REASON, ATTEMPT = "curve", "outcome", "reason", "tried"
STOPPED, INFEASIBLE = "stopped early", "broke a gate"


def study_name(inputs: Mapping[str, Any]) -> str:
    """The name of the study with these inputs: the files its trials read, the space, the fixed parameters."""
    return "tune-" + hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def open_study(folder: Path, name: str, seed: int) -> optuna.Study:
    """The study of this name, created or resumed.

    The sampler is multi-objective TPE (Ozaki et al. 2020): a search has a hundred trials, which are two generations of
    NSGA-II. Each start has its own seed, or it would repeat the last.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=sqlite_uri(folder / "optuna.db"), study_name=name, directions=DIRECTIONS, load_if_exists=True
    )
    study.sampler = optuna.samplers.TPESampler(multivariate=True, seed=seed + len(study.trials))
    return study


def retry_killed(study: optuna.Study) -> list[int]:
    """Fail the trials left in the state RUNNING, and enqueue their points again; their numbers.

    Call only while no other search runs: a trial marked RUNNING then has no process.
    """
    killed = study.get_trials(states=(TrialState.RUNNING,))
    for trial in killed:
        study.tell(trial.number, state=TrialState.FAIL)
        attempt = int(trial.user_attrs.get(ATTEMPT, 1))
        if trial.params and attempt < ATTEMPTS:
            study.enqueue_trial(trial.params, user_attrs={ATTEMPT: attempt + 1})
    return [trial.number for trial in killed]


def find_trial(study: optuna.Study, space: Space, values: Mapping[str, Any]) -> int | None:
    """The number of the completed or pruned trial with this point; None where there is none."""
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if read_point(space, trial.params) == values:
            return trial.number
    return None


def enqueue(study: optuna.Study, space: Space, values: Mapping[str, Any]) -> None:
    """Enqueue this point as the next, unless it was tried or is enqueued already."""
    if find_trial(study, space, values) is None:
        study.enqueue_trial(write_point(space, values), skip_if_exists=True)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def points(study: optuna.Study, space: Space) -> list[Point]:
    """The finished trials as points; pruned and infeasible trials have no figures."""
    return [
        Point(trial.number, int(trial.values[0]), trial.values[1], trial.values[2], read_point(space, trial.params))
        for trial in finished(study)
    ]


def is_below_median(curve: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """The median stopping rule (Golovin et al. 2017): the best value so far is below the others' median at the same epoch."""
    values = [other[len(curve) - 1] for other in others if len(other) >= len(curve)]
    return bool(values) and max(curve) < float(np.median(values))


def outcome(trial: FrozenTrial) -> tuple[str, str]:
    """How a trial ended, and why."""
    names = {TrialState.COMPLETE: "finished", TrialState.FAIL: "failed"}
    name = names.get(trial.state, trial.state.name.lower())
    return trial.user_attrs.get(OUTCOME, name), trial.user_attrs.get(REASON, "killed" if name == "failed" else "")


def typical_seconds(study: optuna.Study) -> float:
    """The median duration of finished trials; 0 where there are none."""
    times = [trial.duration.total_seconds() for trial in finished(study) if trial.duration]
    return float(np.median(times)) if times else 0.0
