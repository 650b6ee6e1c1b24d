"""The service as its users run it, in processes of its own, and what a test asks it without an HTTP library between."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.journal import read, segments
from tests.imports import ROOT

CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)


@dataclass
class Server:
    home: Path
    log: Path
    client: httpx.Client
    key: str
    bento_home: Path
    port: int

    def counts(self) -> set[Path]:
        """Where the workers keep their counts, as their environment says."""
        variables = [line for pid in self.pids() for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
        return {Path(line.decode().partition("=")[2]) for line in variables if line.startswith(b"RESTILL_METERS=")}

    def pids(self) -> set[int]:
        """The workers, as their status records name them."""
        found = [record for path in segments(self.home / "journal") for record in read(path)]
        return {record["pid"] for record in found if record["kind"] == "status"}


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


@contextmanager
def serving(student: Path, folder: Path, key: str, variables: Mapping[str, str]) -> Iterator[Server]:
    """A server with a release of ``student`` and its home below ``folder``, from when it answers."""
    from tests.conftest import made_release

    release, port = made_release(student, folder / "release"), free_port()
    environment = os.environ | {
        "RESTILL_HOME": str(folder / "var"), "RESTILL_RELEASE": str(release),
        "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", **variables,
    }  # fmt: skip
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Restill", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, timeout=30)
    served = Server(folder / "var", folder / "log", client, key, folder / "bentoml", port)
    try:
        deadline = time.monotonic() + 120
        while not answers(client):
            assert process.poll() is None, served.log.read_text()
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.2)
        yield served
    finally:
        client.close()
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The sentence of an error that is as every error must be."""
        assert self.headers["content-type"] == "application/json", self
        said: Any = json.loads(self.body)
        assert list(said) == ["error"], self
        sentence: str = said["error"]
        assert sentence.endswith(".") and "\n" not in sentence, self
        return sentence


def parse_answers(received: bytes, methods: tuple[str, ...] = ()) -> list[Answer]:
    """All answers of a connection, which must be whole. ``methods`` are those of the requests, GET where not given."""
    found: list[Answer] = []
    while received:
        head, blank, received = received.partition(b"\r\n\r\n")
        assert blank, head
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in lines)}
        status = int(line.split()[1])
        silent = status in (100, 204) or (len(found) < len(methods) and methods[len(found)] == "HEAD")
        length = 0 if silent else int(headers["content-length"])
        assert len(received) >= length, (head, received)
        body, received = received[:length], received[length:]
        if status != 100:
            found.append(Answer(status, headers, body))
    return found


def exchange(port: int, *pieces: bytes, pause: float = 0, half_close: bool = False, seconds: float = 20) -> bytes:
    """Send the pieces on one connection, and read until the server closes it. Raises TimeoutError where it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            assert error.errno in CLOSED, error  # what it had to say is still to be read
        received, deadline = bytearray(), time.monotonic() + seconds
        while piece := connection.recv(65_536):
            received += piece
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not close the connection")
    return bytes(received)


def talk(port: int, *pieces: bytes, pause: float = 0, half_close: bool = False) -> list[Answer]:
    """The answers to the pieces, all of which must be whole."""
    return parse_answers(exchange(port, *pieces, pause=pause, half_close=half_close))
