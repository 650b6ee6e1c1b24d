"""What of `make up` is running, a line each: its state, whether it answers, and where.

python -m flows.status            now
python -m flows.status --wait     until all of it answers, or three minutes are over
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = "supervisord.conf"
WAIT_SECONDS = 180
DEFAULTS = {"RESTILL_PORT": "3000", "PREFECT_PORT": "4200", "MLFLOW_PORT": "5000", "EVIDENTLY_PORT": "8000",
            "RESTILL_BENTO": "restill:latest"}  # fmt: skip
"""What the Makefile sets where nobody else does, and ``supervisord.conf`` needs."""


@dataclass(frozen=True)
class Place:
    """Where a program of ``supervisord.conf`` answers, and the path that says it is well."""

    port: str
    healthy: str
    shown: str = ""


PLACES = {
    "prefect": Place("PREFECT_PORT", "/api/health"),
    "mlflow": Place("MLFLOW_PORT", "/health"),
    "service": Place("RESTILL_PORT", "/readyz", "/classify"),
    "evidently": Place("EVIDENTLY_PORT", "/"),
}


def surroundings(root: Path) -> dict[str, str]:
    """This process's environment, with the defaults of `make up` for what is not set."""
    given = {name: value for name, value in os.environ.items() if value.strip()}
    return {**DEFAULTS, "RESTILL_HOME": str(root / "var")} | given


def supervised(environment: Mapping[str, str]) -> dict[str, str]:
    """The state of each program, as the supervisor has it; empty where it does not run."""
    command = [str(Path(sys.executable).with_name("supervisorctl")), "-c", CONFIGURATION, "status"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, encoding="utf-8", errors="replace", check=False)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: words[1] for words in lines if len(words) > 1 and words[1].isupper()}


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  (loopback, from our own table)
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def lines(states: Mapping[str, str], environment: Mapping[str, str]) -> tuple[list[str], bool]:
    """(a line for each program, whether all of them are up)."""
    shown, well = [], True
    for name, state in states.items():
        place = PLACES.get(name)
        up = state == "RUNNING"
        where = "serves the schedules"
        if place is not None:
            address = f"http://127.0.0.1:{environment[place.port]}"
            up = up and answers(address + place.healthy)
            where = address + place.shown
        shown.append(f"{name:12} {'up' if up else state.lower() if state != 'RUNNING' else 'starting':9} {where}")
        well &= up
    return shown, well


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.status", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--wait", action="store_true", help="until all of it answers")
    given = parser.parse_args()
    environment = surroundings(Path.cwd())
    until = time.monotonic() + (WAIT_SECONDS if given.wait else 0)
    while True:
        states = supervised(environment)
        if not states:
            sys.exit("status: nothing is running: `make up` starts it")
        shown, well = lines(states, environment)
        if well or time.monotonic() > until:
            break
        time.sleep(1)
    print("\n".join(shown))
    if not well:
        sys.exit(f"status: not all of it is up; its logs are in {environment['RESTILL_HOME']}/log")


if __name__ == "__main__":
    main()
