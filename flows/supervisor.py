"""The supervisor's configuration for `make up`: ``supervisord.conf``, and a service for each workload with a champion.

python -m flows.supervisor        writes supervisord.conf below RESTILL_HOME

Where the supervisor runs already, the services of workloads that got their first champion since are started; what runs stays as
it is, but for the schedules, which are served anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from service.port import PortError, check_port
from service.release import ReleaseError
from service.store import POINTER
from tasks.files import atomic_write
from tasks.release.bento import bento
from tasks.stage import WORKLOADS, Paths, StageError, project_folder, workloads

SERVICE = """
[program:service-{workload}]
command=python -m flows.process_group bentoml serve {tag} --host 127.0.0.1 --port {port}
environment=RESTILL_PROGRAM="%(program_name)s",RESTILL_WORKLOAD="{workload}"
priority=3
autorestart=true
startsecs=5
startretries=20
stopasgroup=true
killasgroup=true
stopwaitsecs=30
redirect_stderr=true
stdout_logfile=%(ENV_RESTILL_LOG)s/service-{workload}.log
"""


def ports(project: Path, first: int) -> dict[str, int]:
    """The port of each workload's service: ``first`` and those above it, in the order of ``params.yaml``."""
    return {name: first + number for number, name in enumerate(workloads(project))}


def served(project: Path) -> Iterator[Paths]:
    """The workloads that have a champion."""
    for name in workloads(project):
        paths = Paths(project / WORKLOADS / name)
        if (paths.store / POINTER).exists():
            yield paths


def supervisorctl(environment: Mapping[str, str], *words: str) -> list[str]:
    """The lines that ``supervisorctl`` prints; none where no supervisor was ever started."""
    configuration = Path(environment["RESTILL_HOME"]) / "supervisord.conf"
    if not configuration.exists():
        return []
    command = [str(Path(sys.executable).with_name("supervisorctl")), "-c", str(configuration), *words]
    done = subprocess.run(command, env=dict(environment), capture_output=True, encoding="utf-8", errors="replace", check=False)
    return done.stdout.splitlines()


def supervised(environment: Mapping[str, str]) -> dict[str, str]:
    """The state of each program, as the supervisor has it; empty where it does not run."""
    lines = [line.split() for line in supervisorctl(environment, "status")]
    return {words[0]: words[1] for words in lines if len(words) > 1 and words[1].isupper()}


def service_of(workload: str) -> str:
    """The name of the program that serves it."""
    return f"service-{workload}"


def configuration(project: Path, first: int, running: Collection[str] = ()) -> str:
    """The whole configuration. Raises PortError where a port is taken, but by one of the programs that are ``running``;
    ReleaseError where a release cannot be packed."""
    text = (project / "supervisord.conf").read_text(encoding="utf-8")
    for paths in served(project):
        port = ports(project, first)[paths.workload]
        if service_of(paths.workload) not in running:
            check_port("RESTILL_PORT", str(port))
        text += SERVICE.format(workload=paths.workload, tag=bento(paths)[0], port=port)
    return text


def start_added(project: Path, environment: Mapping[str, str], running: Collection[str]) -> None:
    """Start the services that the running supervisor does not have yet; their schedules with them."""
    added = [name for name in (service_of(paths.workload) for paths in served(project)) if name not in running]
    if not added:
        return
    supervisorctl(environment, "reread")
    for name in added:
        supervisorctl(environment, "add", name)
    supervisorctl(environment, "restart", "deployments")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.supervisor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    environment = dict(os.environ)
    running = supervised(environment)
    try:
        project = project_folder()
        text = configuration(project, int(environment["RESTILL_PORT"]), running)
    except (StageError, ReleaseError, PortError) as error:
        sys.exit(f"supervisor: {error}")
    with atomic_write(Path(environment["RESTILL_HOME"]) / "supervisord.conf") as temporary:
        temporary.write_text(text, encoding="utf-8")
    if running:
        start_added(project, environment, running)


if __name__ == "__main__":
    main()
