"""What of `make up` is running, a line each: its state, whether it answers, and where; then what the loop is doing.

python -m flows.status            now
python -m flows.status --wait     until all of it answers, or three minutes are over
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.notice import name_of
from flows.supervisor import ports, service_of, supervised
from tasks.monitor.policy import JudgedWindow
from tasks.monitor.state import INTENTS, Intent, State
from tasks.release.snapshot import NotReady, demand_committed
from tasks.stage import WORKLOADS, Paths, StageError, project_folder, workloads

WAIT_SECONDS = 180
DEFAULTS = {"RESTILL_PORT": "3000", "PREFECT_PORT": "4200", "MLFLOW_PORT": "5000", "EVIDENTLY_PORT": "8000"}  # fmt: skip
"""What the Makefile sets where nobody else does, and ``supervisord.conf`` needs."""


@dataclass(frozen=True)
class ServedPlace:
    """Where a program of ``supervisord.conf`` answers, and the path that says it is well."""

    port: int
    healthy: str


SERVERS = {
    "prefect": ("PREFECT_PORT", "/api/health"),
    "mlflow": ("MLFLOW_PORT", "/health"),
    "evidently": ("EVIDENTLY_PORT", "/"),
}
"""The variable that holds the port of each program, and the path that says it is well."""


def surroundings(root: Path) -> dict[str, str]:
    """This process's environment, with the defaults of `make up` for what is not set."""
    given = {name: value for name, value in os.environ.items() if value.strip()}
    return {**DEFAULTS, "RESTILL_HOME": str(root / "var")} | given


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  (loopback, from our own table)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def lines(states: Mapping[str, str], where: Mapping[str, ServedPlace]) -> tuple[list[str], bool]:
    """(a line for each program, whether all of them are up)."""
    shown, well = [], True
    for name, state in states.items():
        place, up = where.get(name), state == "RUNNING"
        address = f"http://127.0.0.1:{place.port}" if place else "serves the schedules"
        up = up and (place is None or answers(address + place.healthy))
        shown.append(f"{name:16} {'up' if up else state.lower() if state != 'RUNNING' else 'starting':9} {address}")
        well &= up
    return shown, well


def places(project: Path, environment: Mapping[str, str]) -> dict[str, ServedPlace]:
    """Where each program answers; the service of each workload has a port of its own."""
    found = {name: ServedPlace(int(environment[port]), healthy) for name, (port, healthy) in SERVERS.items()}
    for workload, port in ports(project, int(environment["RESTILL_PORT"])).items():
        found[service_of(workload)] = ServedPlace(port, "/readyz")
    return found


def loop(paths: Paths) -> list[str]:
    """The last window and its decision, each open intent and what it waits for, and what would hold a retraining back."""
    shown = [f"{'monitor':16} has judged no window yet"]
    base = paths.monitor / "state.db"
    if base.exists():
        state = State(base)
        for seen in state.past(sys.maxsize, 1):
            shown = [f"{'monitor':16} {_judged(seen)}"]
        intents = [state.open_intent(kind) for kind in INTENTS]
        shown += [f"{name_of(intent):16} {_stands(intent)}" for intent in intents if intent is not None]
    try:
        demand_committed(paths)
    except NotReady as error:
        shown.append(f"{'retraining':16} is held back: {error}")
    except StageError:  # no repository, which the retraining says itself
        pass
    return shown


def _judged(seen: JudgedWindow) -> str:
    assert seen.decision is not None
    why = f": {'; '.join(seen.decision.reasons)}" if seen.decision.reasons else ""
    return f"window {seen.number}, {seen.rows} answers of {seen.release}: {seen.decision.action}{why}"


def _stands(intent: Intent) -> str:
    waits = intent.facts.get("waits") or intent.facts.get("error")
    return f"{intent.kind}, step {intent.step}" + (f", waits: {waits}" if waits else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.status", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--wait", action="store_true", help="until all of it answers")
    arguments = parser.parse_args()
    try:
        project = project_folder()
        environment = surroundings(project)
        where, every = places(project, environment), [Paths(project / WORKLOADS / name) for name in workloads(project)]
    except StageError as error:
        sys.exit(f"status: {error}")
    until = time.monotonic() + (WAIT_SECONDS if arguments.wait else 0)
    while True:
        states = supervised(environment)
        if not states:
            sys.exit("status: nothing is running: `make up` starts it")
        shown, well = lines(states, where)
        if well or time.monotonic() > until:
            break
        time.sleep(1)
    for paths in every:
        shown += [f"{paths.workload}:", *(f"  {line}" for line in loop(paths))]
    print("\n".join(shown))
    if not well:
        sys.exit(f"status: not all of it is up; its logs are in {environment['RESTILL_HOME']}/log")


if __name__ == "__main__":
    main()
