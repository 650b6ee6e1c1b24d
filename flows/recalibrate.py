"""The steps of a recalibration, which the flow ``restill`` takes: a new release of the same model, through the same gate.

Nothing is trained, and no worktree or commit is needed: the code that is packed with the release is the one that lies here.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from flows.notice import name_of
from flows.steps import Steps, build_bento, gate_release, notify, paths_in_tree, promote_release, tree_of
from service.store import read_pointer
from tasks.monitor.followup import records_of
from tasks.monitor.state import Intent, State
from tasks.release.recalibrate import Recalibrate, recalibrate
from tasks.release.register import register_recalibrated
from tasks.release.store import add
from tasks.stage import Paths, StageError, read_params, read_settings

PACKED = ("service", "bentofile.yaml", "constraints.txt", "README.md")
"""What a Bento and MLflow pack beside the release."""


def build(paths: Paths, intent: Intent) -> dict[str, Any]:
    """The new release, in the store and in MLflow. The same intent makes the same release, however often it is tried.

    Raises StageError where another release is champion by now.
    """
    parent, pointer = str(intent.facts["parent"]), read_pointer(paths.store)
    if pointer is None or pointer.champion != parent:
        raise StageError(f"release {parent} was to be recalibrated, and is not the champion any more")
    made, state = paths_in_tree(paths, intent), State(paths.monitor / "state.db")
    answers = records_of(paths.journal, [state.window(number).plan.journal for number in intent.facts["windows"]])
    settings = read_settings(Recalibrate, "recalibrate", read_params(paths.root))
    found = recalibrate(settings, paths, made.root, parent, answers, datetime.fromisoformat(intent.created))
    for name in PACKED:
        _take(paths.project / name, tree_of(paths, intent) / name)
    release = add(paths.store, made.release)
    return {"release": release, "recalibrated": found, "version": register_recalibrated(paths, made, name_of(intent))}


def _take(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


STEPS: Steps = {
    "build": build,
    "gate": gate_release,
    "promote": promote_release,
    "bento": build_bento,
    "notify": notify,
}
