"""service/port.py: a port that nobody can listen on ends the start with one line, however the service is started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.port import PortError, check_port
from tests.imports import ROOT
from tests.service.serving import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


@pytest.mark.parametrize(
    "value", ["", " ", "0", "-1", "65536", "9" * 5000, "1e3", "3000.0", "http", "0x10", "٣٠٠٠", "3_000", "80 80"]
)
def test_what_is_no_port_is_named(value: str) -> None:
    with pytest.raises(PortError) as error:
        check_port("PORT", value)
    assert str(error.value) == f"PORT = {value!r}: expected a whole number from 1 to 65535"


def test_a_port_that_is_taken_is_named_with_what_to_do(taken: int) -> None:
    stopping = f"stop what uses it, or choose another port, as in PORT={taken + 1}"
    with pytest.raises(PortError) as error:
        check_port("PORT", str(taken))
    assert str(error.value) == f"PORT = {taken}: cannot listen on 127.0.0.1:{taken} (Address already in use): {stopping}"
    with pytest.raises(PortError, match=r"on 0\.0\.0\.0:"):
        check_port("PORT", str(taken), "0.0.0.0")
    with pytest.raises(PortError, match="Cannot assign"):
        check_port("PORT", str(free_port()), "203.0.113.1")
    with pytest.raises(PortError, match="--host = 'nowhere'"):
        check_port("PORT", str(free_port()), "nowhere")


def test_a_free_port_is_free_also_where_a_connection_to_it_was_just_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listening.accept()[0].close()
    check_port("PORT", str(port))
    check_port("PORT", f" {port} ")


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RESTILL_HOME": str(folder), "BENTOML_HOME": str(folder / "bentoml")} | variables
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=120)


def test_bentoml_serve_ends_with_one_line(taken: int, tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "bentoml", "serve", "service.app:Restill", "--host", "127.0.0.1"]
    for port, says in ((taken, "Address already in use"), (70_000, "expected a whole number")):
        done = run([*serve, "--port", str(port)], tmp_path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"restill: --port = {port!r}" if port == taken else f"restill: --port = '{port}'")
        assert says in line
        assert done.stdout == ""


def test_make_serve_ends_with_one_line_of_ours(taken: int, tmp_path: Path) -> None:
    """The recipe's own first line, before anything is built, as make would run it."""
    tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for value, says in (
        (str(taken), "Address already in use"),
        ("http", "expected a whole number"),
        ("99999", "from 1 to 65535"),
    ):
        shown = run(["make", "-n", "serve", "-o", "setup", f"PORT={value}"], tmp_path)
        first = next(line for line in shown.stdout.splitlines() if "flows.serve" in line)
        done = run(["sh", "-c", first], tmp_path, PORT=value, **tools)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("serve: PORT = ")
        assert says in line
