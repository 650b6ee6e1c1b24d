"""Flow restill: an intent of the monitor becomes a new release, or a clear no. Exactly once, whatever dies on the way.

    python -m flows.restill            act on the oldest open intent, if there is one
    python -m flows.restill --why "new labels"     write an intent by hand first

Each step is written down in the monitor's state when it is done, and each can be done twice: a flow that died is simply
run again. One intent is acted on at a time; a second one waits, and the monitor merges what it decides meanwhile. A
recalibration, which takes seconds, comes before a restill, and has steps of its own (``flows.recalibrate``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.states import Completed, Failed

from flows import recalibrate
from flows.command import get_ready, run_command
from flows.file_lock import end_orphans, run_lock
from flows.notice import name_of, outcome_of, summary, tell, webhook
from flows.pipeline import run_stages
from flows.steps import RECALIBRATED, Restill, Steps, build_bento, gate_release, notify, paths_in_tree, promote_release, tree_of
from tasks.monitor.state import Intent, State
from tasks.release.register import register
from tasks.release.snapshot import (
    NotReady,
    close_worktree,
    commit_snapshot,
    keep_quarantine,
    open_worktree,
    push_data,
    take_snapshot,
)
from tasks.release.store import Fenced, add
from tasks.stage import Paths, StageError, add_option, as_time, find_workload, read_params, read_settings
from tasks.tracking import tracking_uri


def snapshot(paths: Paths, intent: Intent) -> dict[str, Any]:
    """The corpus up to the intent's time and the confirmed feedback, in a clean worktree; or what this ``waits`` for."""
    try:
        folder = open_worktree(paths, name_of(intent))
    except NotReady as error:  # of an exception the log of a task has the traceback, each minute
        return {"waits": str(error)}
    until = as_time(datetime.fromisoformat(intent.created))
    assert until is not None
    facts = take_snapshot(paths.root, folder, paths.feedback, until)
    kept = paths.monitor / "quarantine" / f"{name_of(intent)}.csv"  # the worktree goes, and reviewers are to be asked
    return facts | {"feedback_quarantine": keep_quarantine(folder, kept)}


def build(paths: Paths, intent: Intent) -> dict[str, Any]:
    """Every stage of the same graph, in the worktree; what an earlier try has finished is not run again."""
    made = paths_in_tree(paths, intent)
    run_stages(made, False, name_of(intent))
    release = add(paths.store, made.release)
    return {"release": release, "version": register(made, name_of(intent), paths.store)[0]}


def push(paths: Paths, intent: Intent) -> dict[str, Any]:
    return {"push": push_data(tree_of(paths, intent))}


def commit(paths: Paths, intent: Intent) -> dict[str, Any]:
    """The lock and the pointers of this data, on a branch of its own: a reviewer merges it, or lets it lie."""
    what = f"release {intent.facts['release']}, {'promoted' if intent.facts['promoted'] else 'refused by the gate'}"
    return {"commit": commit_snapshot(paths_in_tree(paths, intent), f"Restill {name_of(intent)}: {what}")}


STEPS: Steps = {
    "snapshot": snapshot,
    "build": build,
    "gate": gate_release,
    "promote": promote_release,
    "commit": commit,  # at once: whatever is away then, it is known what the champion was made of
    "bento": build_bento,
    "push": push,
    "notify": notify,
}
RETRIED = {"push": 3, "promote": 1}
"""Steps that touch something which may be away for a moment, and how often they are tried again."""


def steps_of(intent: Intent) -> Steps:
    return recalibrate.STEPS if intent.kind == "recalibrate" else STEPS


def remaining(intent: Intent, folder: Path) -> list[str]:
    """The steps that are still to do. Where its folder is gone, all is done again, unless the release is decided on."""
    names = list(steps_of(intent))
    done = names.index(intent.step) + 1 if intent.step in names else 0
    return names if "promoted" not in intent.facts and not folder.exists() else names[done:]


def act(paths: Paths, state: State, intent: Intent) -> Intent:
    """Take every step that is left. Raises StageError where one fails."""
    end_orphans(tree_of(paths, intent))
    for name in remaining(intent, tree_of(paths, intent)):
        work = steps_of(intent)[name]
        step: Task[..., dict[str, Any]] = Task(
            work, name=name, retries=RETRIED.get(name, 0), retry_delay_seconds=5, cache_policy=NO_CACHE
        )
        # The stages of build are tasks themselves, and a task inside of a task would hide them.
        facts = work(paths, intent) if name == "build" else step(paths, intent)
        if waits := facts.get("waits"):
            raise NotReady(waits)
        intent = state.advance(intent.id, name, **facts, error=None, waits=None)
    return intent


def tidy(paths: Paths, state: State) -> None:
    """Remove the worktrees of intents that ended; the snapshot of one that was decided on is committed before.

    A run may have died, or the disk have been full, between the end of an intent and this. What cannot be committed now
    either is kept, for it is the only place that says what the champion was made of.
    """
    for folder in sorted((paths.home / "worktrees").glob("intent-*")):
        intent = _ended(state, folder.name)
        if intent is None:
            continue
        try:
            if "promoted" in intent.facts and "commit" not in intent.facts:
                commit(paths, intent)
            close_worktree(paths, folder.name)
        except (StageError, OSError) as error:
            get_run_logger().warning("%s is kept: %s", folder, error)
    for folder in sorted((paths.home / RECALIBRATED).glob("intent-*")):
        if _ended(state, folder.name) is not None:
            shutil.rmtree(folder)


def _ended(state: State, name: str) -> Intent | None:
    """The intent of this name where it has ended; None where it is open, or of a state that is no more."""
    try:
        intent = state.intent(int(name.split("-")[1]))
    except (StageError, ValueError):
        return None
    return intent if intent.outcome is not None and name_of(intent) == name else None


@flow(name="restill")
def restill(folder: Path | None = None) -> RunState[Any]:
    """Act on the oldest open intent: snapshot, graph, gate, promotion, branch, Bento, push, notification.

    Of a recalibration: the new release, gate, promotion, Bento, notification.
    """
    paths = Paths(folder.resolve()) if folder else find_workload()
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking_uri(paths.project))
    try:
        settings = read_settings(Restill, "restill", read_params(paths.root))
        webhook()
    except StageError as error:  # now, and not when there is something to tell
        return Failed(message=str(error))
    with run_lock(paths, "restill") as free:
        if not free:
            return Completed(name="Skipped", message="another restill is at work; the intent waits")
        state = State(paths.monitor / "state.db")
        tidy(paths, state)
        intent = state.open_intent("recalibrate") or state.open_intent("restill")
        if intent is None:
            return Completed(name="Idle", message="no intent is open")
        try:
            intent = act(paths, state, intent)
        except Exception as error:  # written down with the intent, and the run fails with it
            return _failed(paths, state, state.intent(intent.id), settings, error)
        state.end(intent.id, outcome_of(intent))
        tidy(paths, state)
        return Completed(message=summary(intent))


def _failed(paths: Paths, state: State, intent: Intent, settings: Restill, error: Exception) -> RunState[Any]:
    """Count the failure; after the last attempt the intent is closed, and the cooldown keeps the next one away."""
    if isinstance(error, NotReady):  # nothing is wrong: the next run sees whether it is ready
        state.advance(intent.id, intent.step, waits=str(error))
        return Completed(name="Waiting", message=f"{name_of(intent)} waits: {error}")
    count = int(intent.facts.get("failures", 0)) + 1
    message = f"{type(error).__name__}: {error}" if not isinstance(error, StageError) else str(error)
    # Somebody promoted another release meanwhile: the comparison is with that one now, so the gate is asked again.
    step = "build" if isinstance(error, Fenced) else intent.step
    intent = state.advance(intent.id, step, failures=count, error=message[-2000:])
    if count >= settings.attempts:
        tell(intent, settings.notify_block)
        state.end(intent.id, outcome_of(intent))
        tidy(paths, state)
    return Failed(message=f"{name_of(intent)}, failure {count} of {settings.attempts}: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.restill", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--why", help="write an intent by hand first, with this reason")
    add_option(parser)
    given = parser.parse_args()
    get_ready()
    paths = find_workload(given.workload)
    try:
        read_settings(Restill, "restill", read_params(paths.root))
        webhook()
        if given.why:
            State(paths.monitor / "state.db").ask(given.why, datetime.now(UTC))
    except StageError as error:
        sys.exit(f"restill: {error}")
    state = restill(paths.root, return_state=True)
    if not state.is_completed():
        sys.exit(f"restill: {state.message}")
    print(state.message)


if __name__ == "__main__":
    run_command("restill", main)
