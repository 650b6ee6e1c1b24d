"""Context managers that run the service and a Prefect server on free loopback ports during a replay."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from service.access import add
from tasks.replay.stream import Client
from tasks.stage import StageError


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def service(world: Path, environment: Mapping[str, str], home: Path, release: Path | None, log: Path) -> Iterator[Client]:
    """The service of ``world`` on the runtime state in ``home``, stopped at the end. Raises StageError if it does not start."""
    key = add(home / "keys.json", "replay", ["classify", "feedback"])
    port = free_port()
    variables = dict(environment) | {"RESTILL_HOME": str(home), "RESTILL_STATUS_SECONDS": "5"}
    if release is not None:
        variables["RESTILL_RELEASE"] = str(release)
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Restill", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, world, variables, log) as process:
        yield _wait_until_ready(Client(port, key), "/model", process, log)


@contextmanager
def prefect(world: Path, environment: Mapping[str, str], log: Path) -> Iterator[dict[str, str]]:
    """The environment with the address of a Prefect server; otherwise each flow run would start one, and wait for it."""
    port = free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _running(command, world, environment, log) as process:
        _wait_until_ready(Client(port, ""), "/api/health", process, log)
        yield {**environment, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


@contextmanager
def _running(command: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        _stop(process)


def _wait_until_ready(client: Client, path: str, process: subprocess.Popen[bytes], log: Path) -> Client:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            if client.call("GET", path)[0] == 200:
                return client
        except (OSError, ValueError, HTTPException):
            client.close()
        time.sleep(0.5)
    raise StageError(f"a server did not start: {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and all its processes; it may have ended by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
        return
