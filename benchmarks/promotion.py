"""Promotions and rollbacks under load: failed requests, and latency during a swap.

    python -m benchmarks.promotion [--requests 20000] [--clients 8] [--swaps 10]

Starts the service with two workers on loopback, on a store of its own, and sends requests from several threads while the
champion changes: promotions of releases new to the workers, which have to load and verify each, with rollbacks between
them. A request fails if it gets no answer, a status other than 200, or an answer of a release that was not champion during
it. Exit code 1 if one failed or an answer has no record.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.access import add as add_key
from service.journal import read, segments
from service.store import read_pointer
from tasks.release.package import seal
from tasks.release.promote import add, promote, rollback

ROOT = Path(__file__).parents[1]
WORKERS = 2
CHARACTERS = 1500
"""Length of a text, about that of a typical mail."""


@dataclass(frozen=True)
class TimedRequest:
    """One request: its start, its duration, and the release that answered ("" where it failed)."""

    start: float
    seconds: float
    release: str
    error: str


@dataclass(frozen=True)
class Swap:
    """One change of the champion, from the command until all workers serve it."""

    start: float
    end: float
    release: str
    action: str


def copies(folder: Path, count: int) -> Iterator[Path]:
    """Copies of the last built release, each with another card and hence another id."""
    for number in range(count):
        copy = folder / f"release-{number}"
        shutil.copytree(ROOT / "release", copy)
        card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
        (copy / "card.json").write_text(json.dumps(card | {"copy": number}), encoding="utf-8")
        seal(copy)
        yield copy


def texts(count: int) -> list[bytes]:
    """Request bodies of random words from the release's probe texts."""
    probes = json.loads((ROOT / "release/probes.json").read_text(encoding="utf-8"))["probes"]
    words = " ".join(probe["input"] for probe in probes).split(" ")
    rng = np.random.default_rng(0)
    return [json.dumps({"text": " ".join(rng.choice(words, size=400))[:CHARACTERS]}).encode() for _ in range(count)]


@contextmanager
def service(home: Path, port: int) -> Iterator[None]:
    """Run the service with two workers on the store in ``home``; stopped at the end."""
    environment = os.environ | {
        "RESTILL_HOME": str(home), "RESTILL_WORKERS": str(WORKERS), "RESTILL_POLL_SECONDS": "0.2",
        "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True",
    }  # fmt: skip
    environment.pop("RESTILL_RELEASE", None)
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Restill", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    except BaseException:
        print((home / "log").read_text(encoding="utf-8"), file=sys.stderr)
        raise
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def wait_until_served(port: int, release: str, seconds: float = 120) -> None:
    """Wait until every worker serves ``release``, according to the metrics of all workers."""
    expected = f'restill_serving{{release="{release}"}} {float(WORKERS)}'
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                if expected in response.read().decode():
                    return
        except OSError:
            time.sleep(0.2)
        time.sleep(0.02)
    raise TimeoutError(f"{release} is not served by {WORKERS} workers after {seconds:g} s")


class Load:
    """Client threads that send ``requests`` requests in total, each over its own connection."""

    def __init__(self, port: int, key: str, requests: int, clients: int) -> None:
        self._port, self._bodies = port, texts(200)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._counter, self._total = itertools.count(), requests
        self.timed: list[TimedRequest] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def wait_for(self, requests: int) -> None:
        while len(self.timed) < requests and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while (number := next(self._counter)) < self._total:
            start, release, error = time.perf_counter(), "", ""
            try:
                connection.request("POST", "/classify", self._bodies[number % len(self._bodies)], self._headers)
                response = connection.getresponse()
                content = response.read()
                release = json.loads(content)["release"] if response.status == 200 else ""
                error = "" if response.status == 200 else str(response.status)
            except (OSError, http.client.HTTPException) as exception:
                error = type(exception).__name__
                connection.close()
            self.timed.append(TimedRequest(start, time.perf_counter() - start, release, error))
        connection.close()


def change(store: Path, port: int, new_releases: Iterator[str], turn: int) -> Swap:
    """Every third change is a rollback, the others promote a release new to all workers."""
    start = time.perf_counter()
    pointer = read_pointer(store)
    token = pointer.token if pointer else 0
    if turn % 3 == 2:
        pointer = rollback(store, expected=token, who="benchmark", why=f"turn {turn}")
    else:
        pointer = promote(store, next(new_releases), expected=token, who="benchmark", why=f"turn {turn}", gate=None)
    wait_until_served(port, pointer.champion)
    return Swap(start, time.perf_counter(), pointer.champion, str(pointer.entry["action"]))


def failures(requests: list[TimedRequest], swaps: list[Swap]) -> Counter[str]:
    """Causes of failed requests; a release may answer from its promotion until all workers serve the next one."""
    causes = Counter(entry.error for entry in requests if entry.error)
    terms: dict[str, list[tuple[float, float]]] = {}
    for swap, following in zip(swaps, [*swaps[1:], None], strict=True):
        terms.setdefault(swap.release, []).append((swap.start, following.end if following else float("inf")))
    for entry in requests:
        end = entry.start + entry.seconds
        if not entry.error and not any(first <= end and entry.start <= last for first, last in terms.get(entry.release, [])):
            causes["answered by a release that was not champion"] += 1
    return causes


def in_swap(entry: TimedRequest, swaps: list[Swap]) -> bool:
    return any(swap.start <= entry.start + entry.seconds and entry.start <= swap.end for swap in swaps)


def milliseconds(requests: list[TimedRequest]) -> str:
    """p50, p99 and the longest, as one row."""
    if not requests:
        return "0 | - | - | -"
    p50, p99, longest = np.percentile([entry.seconds * 1000 for entry in requests], [50, 99, 100])
    return f"{len(requests):,} | {p50:.2f} | {p99:.2f} | {longest:.1f}"


def report(requests: list[TimedRequest], swaps: list[Swap], failed: Counter[str], recorded: int) -> None:
    seconds = max(entry.start + entry.seconds for entry in requests) - min(entry.start for entry in requests)
    changes = Counter(swap.action for swap in swaps[1:])
    print(f"| {WORKERS} workers | |\n| --- | ---: |")
    print(f"| requests | {len(requests):,} |\n| requests a second | {len(requests) / seconds:,.0f} |")
    print(f"| promotions, rollbacks | {changes['promote']}, {changes['rollback']} |")
    print(f"| failed requests | {sum(failed.values()):,} |\n| records in the journal | {recorded:,} |")
    print(f"| longest change until all workers serve it | {max(swap.end - swap.start for swap in swaps[1:]):.2f} s |")
    for release, count in Counter(entry.release for entry in requests if entry.release).items():
        print(f"| answered by {release} | {count:,} |")
    print("\n| requests | number | p50 ms | p99 ms | longest ms |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| quiet | {milliseconds([entry for entry in requests if not in_swap(entry, swaps[1:])])} |")
    print(f"| while the champion changes | {milliseconds([entry for entry in requests if in_swap(entry, swaps[1:])])} |")
    for why, count in failed.items():
        print(f"failed: {why}: {count:,}")


def main(requests: int, clients: int, turns: int) -> int:
    with tempfile.TemporaryDirectory(prefix="restill-") as name, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.close()
        home = Path(name)
        new_releases = iter([add(home / "store", copy) for copy in copies(home / "made", turns + 1)])
        key = add_key(home / "keys.json", "benchmark", ["classify"])
        first = promote(home / "store", next(new_releases), expected=0, who="benchmark", why="start", gate=None)
        with service(home, port):
            wait_until_served(port, first.champion)
            swaps = [Swap(0, time.perf_counter(), first.champion, "bootstrap")]
            load = Load(port, key, requests, clients)
            load.start()
            for turn in range(turns):
                load.wait_for((turn + 1) * requests // (turns + 1))
                swaps.append(change(home / "store", port, new_releases, turn))
            load.join()
        records = [record for path in segments(home / "journal") for record in read(path)]
    recorded = sum(record["kind"] == "answer" for record in records)
    failed = failures(load.timed, swaps)
    report(load.timed, swaps, failed, recorded)
    return 0 if not failed and recorded == requests else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotion", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--swaps", type=int, default=10)
    arguments = parser.parse_args()
    sys.exit(main(arguments.requests, arguments.clients, arguments.swaps))
