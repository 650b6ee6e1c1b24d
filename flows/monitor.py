"""Flow monitor: each closed window of the traffic is judged once, and what is decided is written down and acted on.

    python -m flows.monitor            judge what has closed since the last time

A run that dies goes on where it stopped. What is for people comes last, and stops nothing: Evidently's report and the run
in MLflow, of what is news and of the newest window. A rollback is carried out here; a restill or recalibration is left to
the flow ``restill``, which is started at once where a Prefect server knows its deployment, and else by its schedule or by
hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from flows.command import get_ready, run_command
from flows.file_lock import run_lock
from flows.notice import name_of
from tasks.monitor import watch
from tasks.monitor.decide import Decide, Decision, JudgedWindow
from tasks.monitor.record import note, record
from tasks.monitor.report import report_window
from tasks.monitor.settings import read_monitor
from tasks.monitor.state import Intent, State
from tasks.release.mirror import mirror
from tasks.release.store import Fenced, rollback
from tasks.stage import Paths, StageError, add_option, find_workload, read_params
from tasks.tracking import tracking_uri

PATIENCE = 3
"""Windows that may fail to be shown before a run gives up."""
SHOWN = 10
"""Windows that one run shows: while it does, nobody judges. The others wait for the next run, the newest come first."""
SAID = 10
"""Windows of which a run's last line says each what was decided."""


@task(name="cut", cache_policy=NO_CACHE)
def cut(paths: Paths, settings: watch.Monitor) -> int:
    """Close the windows that are full or due; how many are new."""
    return len(watch.cut(settings, State(paths.monitor / "state.db"), paths))


@task(name="judge", cache_policy=NO_CACHE)
def judge(watcher: watch.Watcher) -> list[watch.Judgement]:
    """Signals, decisions and, where they are due, intents of the next windows: written down together, or not at all."""
    return watcher.judge_next()


@task(name="report", cache_policy=NO_CACHE)
def report(paths: Paths, settings: watch.Monitor, seen: JudgedWindow) -> None:
    """Evidently's report of a judged window."""
    state = State(paths.monitor / "state.db")
    report_window(settings, state, paths, state.window(seen.number))
    state.show("report", seen.number)


@task(name="publish", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def publish(paths: Paths, settings: watch.Monitor, seen: JudgedWindow) -> None:
    """A judged window where people look: a run in MLflow, an artifact here."""
    assert seen.decision is not None
    page = watch.page_of(paths, seen.number)
    told = note(seen, seen.decision, page if page.exists() else None)
    record(paths, seen, told)
    create_markdown_artifact(told, key=f"window-{seen.number}", description=seen.decision.action)
    State(paths.monitor / "state.db").show("publish", seen.number)


@task(name="rollback", retries=2, retry_delay_seconds=2, cache_policy=NO_CACHE)
def roll_back(paths: Paths, intent: Intent) -> str:
    """Carry out a rollback once: the token of the judgement says whether it is done, or somebody was faster."""
    state = State(paths.monitor / "state.db")
    try:
        # An intent of an earlier version holds no token: 0 is no pointer's, so nothing is undone for it.
        pointer = rollback(paths.store, expected=intent.facts.get("token", 0), who="monitor", why=f"intent-{intent.id}")
    except Fenced as error:
        state.end(intent.id, "superseded", error=str(error))
        return f"superseded: {error}"
    except StageError as error:  # no release to go back to, or a broken one: it will not be there the next time either
        state.end(intent.id, "failed", error=str(error))
        get_run_logger().warning("rollback of intent-%d failed: %s", intent.id, error)
        return f"rollback failed: {error}"
    mirror(paths, pointer)
    state.end(intent.id, "rolled back", champion=pointer.champion)
    return f"rolled back to {pointer.champion}"


@task(name="start-restill", cache_policy=NO_CACHE)
def start_restill(paths: Paths, intent: Intent) -> str:
    """Ask the Prefect server for a run of ``restill``: one an intent, however often it is asked."""
    if not PREFECT_API_URL.value():
        return f"intent {intent.id} is written; `python -m flows.restill` acts on it"
    try:
        run: Any = run_deployment(f"restill/{paths.workload}", timeout=0, idempotency_key=name_of(intent), as_subflow=False)
    except ObjectNotFound:
        return f"intent {intent.id} is written; no deployment of restill is served, `python -m flows.restill` acts on it"
    return f"run {run.name} acts on intent {intent.id}"


@flow(name="monitor")
def monitor(folder: Path | None = None) -> RunState[Any]:
    """Judge every window of the traffic that has closed, and act on what was decided."""
    paths = Paths(folder.resolve()) if folder else find_workload()
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking_uri(paths.project))
    settings, policy = read_monitor(read_params(paths.root))
    with run_lock(paths, "monitor") as free:
        if not free:
            return Completed(name="Skipped", message="another monitor is at work")
        return Completed(message=", ".join(watch_traffic(paths, settings, policy)) or "no window has closed")


def watch_traffic(paths: Paths, settings: watch.Monitor, policy: Decide) -> list[str]:
    """Cut, judge, act, and only then tell people; what was done, a line each."""
    cut(paths, settings)
    state = State(paths.monitor / "state.db")
    said = _said(judge_all(watch.Watcher(settings, policy, state, paths)))
    for kind, action in (("rollback", roll_back), ("recalibrate", start_restill), ("restill", start_restill)):
        if (intent := state.open_intent(kind)) is not None:
            said.append(action(paths, intent))
            get_run_logger().info(said[-1])
    show(paths, settings, state, report)
    show(paths, settings, state, publish)
    return said


def judge_all(watcher: watch.Watcher) -> list[tuple[int, Decision]]:
    """Judge all windows that are cut, many at once; the log says each one's reasons, and of calm ones how many there were."""
    log, found = get_run_logger(), []
    while watcher.state.unjudged(1):
        decided = [(one.window.number, one.decision) for one in judge(watcher)]
        for number, decision in decided:
            if decision.reasons:
                level = log.warning if decision.news else log.info
                level("window %d: %s: %s", number, decision.action, "; ".join(decision.reasons))
        calm = sum(not decision.reasons for _, decision in decided)
        log.info("windows %d to %d: %d of %d calm", decided[0][0], decided[-1][0], calm, len(decided))
        found += decided
    return found


def _said(decided: list[tuple[int, Decision]]) -> list[str]:
    """What was decided: a line a window, or of many windows one for all."""
    if len(decided) <= SAID:
        return [f"window {number}: {decision.action}" for number, decision in decided]
    actions = Counter(decision.action for _, decision in decided)
    counts = ", ".join(f"{count} {action}" for action, count in actions.most_common())
    return [f"windows {decided[0][0]} to {decided[-1][0]}: {counts}"]


def show(paths: Paths, settings: watch.Monitor, state: State, effect: Task[..., None]) -> None:
    """Show people the judged windows that are news, and the newest, where ``effect`` has not shown them yet.

    What fails costs a warning, and a later run tries again what is news, or the newest still. After a few failures it is
    the tool and not the window: the rest is not tried, for each try takes its time.
    """
    failures = 0
    for seen in state.unshown(effect.name, settings.report.keep)[-SHOWN:]:
        try:
            effect(paths, settings, seen)
        except Exception as error:  # of whatever kind: the window is judged, and what was decided is done
            failures += 1
            get_run_logger().warning(
                "%s of window %d failed (%s); a later run tries again", effect.name, seen.number, type(error).__name__
            )
            if failures == PATIENCE:
                return


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.monitor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_option(parser)
    given = parser.parse_args()
    get_ready()
    try:
        paths = find_workload(given.workload)
        read_monitor(read_params(paths.root))
    except StageError as error:
        sys.exit(f"monitor: {error}")
    state = monitor(paths.root, return_state=True)
    if not state.is_completed():
        sys.exit(f"monitor: {state.message}")
    print(state.message)


if __name__ == "__main__":
    run_command("monitor", main)
