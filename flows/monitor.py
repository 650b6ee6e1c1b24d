"""Flow monitor: each closed window of the traffic is judged once, and what is decided is written down and acted on.

    python -m flows.monitor            judge what has closed since the last time

A run that dies goes on where it stopped. A rollback is carried out here; a restill is left to the flow ``restill``, which
is started at once where a Prefect server knows its deployment, and else by its schedule or by hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State as RunState
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from flows.alone import alone
from service.store import read_pointer
from tasks.monitor import watch
from tasks.monitor.decide import Decide, Decision, Seen
from tasks.monitor.record import note, record, recorded
from tasks.monitor.report import report_window
from tasks.monitor.state import Intent, State, Window
from tasks.release.mirror import mirror
from tasks.release.store import Fenced, rollback
from tasks.stage import Paths, StageError, read_params, read_settings


@task(name="cut", cache_policy=NO_CACHE)
def cut(paths: Paths, settings: watch.Monitor) -> int:
    """Close the windows that are full or due; how many are new."""
    return len(watch.cut(settings, State(paths.monitor / "state.db"), paths))


@task(name="judge", cache_policy=NO_CACHE)
def judge(paths: Paths, settings: watch.Monitor, policy: Decide, window: Window) -> Decision:
    """Evidently's report; then signals, decision and, where one is due, the intent: written down together, or not at all."""
    state = State(paths.monitor / "state.db")
    report_window(settings, state, paths, window)
    return watch.judge(settings, policy, state, paths, window).decision


@task(name="publish", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def publish(paths: Paths, seen: Seen) -> None:
    """A judged window where people look: an artifact here, a run in MLflow."""
    assert seen.decision is not None
    page = watch.page_of(paths, seen.number)
    told = note(seen, seen.decision, page if page.exists() else None)
    create_markdown_artifact(told, key=f"window-{seen.number}", description=seen.decision.action)
    record(paths.root, seen, told)


@task(name="rollback", retries=2, retry_delay_seconds=2, cache_policy=NO_CACHE)
def roll_back(paths: Paths, intent: Intent) -> str:
    """Carry out a rollback once: the token that was seen first says whether it is done, or somebody was faster."""
    state = State(paths.monitor / "state.db")
    if "token" not in intent.facts:
        pointer = read_pointer(paths.store)
        intent = state.advance(intent.id, "seen", token=pointer.token if pointer else 0)
    try:
        pointer = rollback(paths.store, expected=intent.facts["token"], who="monitor", why=f"intent-{intent.id}")
    except Fenced as error:
        state.end(intent.id, "superseded", error=str(error))
        return f"superseded: {error}"
    mirror(paths.root, pointer)
    state.end(intent.id, "rolled back", champion=pointer.champion)
    return f"rolled back to {pointer.champion}"


@task(name="start-restill", cache_policy=NO_CACHE)
def start_restill(intent: Intent) -> str:
    """Ask the Prefect server for a run of ``restill``: one an intent, however often it is asked."""
    if not PREFECT_API_URL.value():
        return f"intent {intent.id} is written; `python -m flows.restill` acts on it"
    try:
        run: Any = run_deployment("restill/restill", timeout=0, idempotency_key=f"intent-{intent.id}", as_subflow=False)
    except ObjectNotFound:
        return f"intent {intent.id} is written; no deployment of restill is served, `python -m flows.restill` acts on it"
    return f"run {run.name} acts on intent {intent.id}"


@flow(name="monitor")
def monitor(root: Path | None = None) -> RunState[Any]:
    """Judge every window of the traffic that has closed, and act on what was decided."""
    paths = Paths((root or Path.cwd()).resolve())
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{paths.root}/mlflow.db")
    params = read_params(paths.root)
    settings, policy = read_settings(watch.Monitor, "monitor", params), read_settings(Decide, "decide", params)
    with alone(paths, "monitor") as free:
        if not free:
            return Completed(name="Skipped", message="another monitor is at work")
        return Completed(message=", ".join(watch_traffic(paths, settings, policy)) or "no window has closed")


def watch_traffic(paths: Paths, settings: watch.Monitor, policy: Decide) -> list[str]:
    """Cut, judge, act; what was done, a line each."""
    cut(paths, settings)
    state = State(paths.monitor / "state.db")
    said = []
    for window in state.unjudged():
        decision = judge(paths, settings, policy, window)
        said.append(f"window {window.number}: {decision.action}")
        level = get_run_logger().warning if decision.news else get_run_logger().info
        level("window %d: %s: %s", window.number, decision.action, "; ".join(decision.reasons) or "calm")
    newest = state.past(sys.maxsize, settings.report.keep)
    known = recorded(paths.root) if newest else set()
    for seen in newest:  # also what an earlier run judged, and then died
        if seen.id not in known:
            publish(paths, seen)
    for kind, action in (("rollback", lambda intent: roll_back(paths, intent)), ("restill", start_restill)):
        if (intent := state.open_intent(kind)) is not None:
            said.append(action(intent))
            get_run_logger().info(said[-1])
    return said


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.monitor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    root = Path.cwd()
    try:
        params = read_params(root)
        read_settings(watch.Monitor, "monitor", params)
        read_settings(Decide, "decide", params)
    except StageError as error:
        sys.exit(f"monitor: {error}")
    state = monitor(root, return_state=True)
    if not state.is_completed():
        sys.exit(f"monitor: {state.message}")
    print(state.message)


if __name__ == "__main__":
    main()
