"""The supervisor's configuration for `make up`: ``supervisord.conf``, and a service for each workload with a champion.

python -m flows.supervisor        writes supervisord.conf below RESTILL_HOME
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
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


def configuration(project: Path, first: int) -> str:
    """The whole configuration. Raises PortError where a port is taken, ReleaseError where a release cannot be packed."""
    text = (project / "supervisord.conf").read_text(encoding="utf-8")
    for paths in served(project):
        port = ports(project, first)[paths.workload]
        check_port("RESTILL_PORT", str(port))
        text += SERVICE.format(workload=paths.workload, tag=bento(paths)[0], port=port)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.supervisor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    try:
        text = configuration(project_folder(), int(os.environ["RESTILL_PORT"]))
    except (StageError, ReleaseError, PortError) as error:
        sys.exit(f"supervisor: {error}")
    with atomic_write(Path(os.environ["RESTILL_HOME"]) / "supervisord.conf") as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
