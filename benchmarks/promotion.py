"""Promotions and rollbacks under load: does a request fail, and what does it cost the others?

    python -m benchmarks.promotion [--requests 20000] [--clients 8] [--swaps 10]

Starts the service with two workers on loopback, on a store of its own, and asks it from several threads while the
champion changes: releases that no worker has seen, so that each is loaded and proved, and rollbacks between them. A
request fails where it gets no answer, another status than 200, or a release that was not champion while it ran.
Exit code 1 where one failed or an answer has no record.
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
"""Length of a text, about that of a mail."""


@dataclass(frozen=True)
class TimedRequest:
    """One request: when it began, how long it took, and the release that answered ("" where it failed)."""

    begun: float
    seconds: float
    release: str
    error: str


@dataclass(frozen=True)
class Swap:
    """One change of the champion: from the command until all workers served it."""

    begun: float
    ended: float
    release: str
    action: str


def copies(folder: Path, count: int) -> Iterator[Path]:
    """The release that was made last, and copies of it with another card, and so with another id."""
    for number in range(count):
        copy = folder / f"release-{number}"
        shutil.copytree(ROOT / "release", copy)
        card = json.loads((copy / "card.json").read_text(encoding="utf-8"))
        (copy / "card.json").write_text(json.dumps(card | {"copy": number}), encoding="utf-8")
        seal(copy)
        yield copy


def texts(count: int) -> list[bytes]:
    """Bodies of random words of the release's probe texts."""
    probes = json.loads((ROOT / "release/probes.json").read_text(encoding="utf-8"))["probes"]
    words = " ".join(probe["text"] for probe in probes).split(" ")
    rng = np.random.default_rng(0)
    return [json.dumps({"text": " ".join(rng.choice(words, size=400))[:CHARACTERS]}).encode() for _ in range(count)]


@contextmanager
def service(home: Path, port: int) -> Iterator[None]:
    """Two workers that follow ``home``'s store, until they answer; stopped at the end."""
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
    """Until every worker serves ``release``, as the metrics of all of them together say."""
    wanted = f'restill_serving{{release="{release}"}} {float(WORKERS)}'
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                if wanted in answer.read().decode():
                    return
        except OSError:
            time.sleep(0.2)
        time.sleep(0.02)
    raise TimeoutError(f"{release} is not served by {WORKERS} workers after {seconds:g} s")


class Load:
    """Client threads that ask until ``requests`` were asked, each on a connection of its own."""

    def __init__(self, port: int, key: str, requests: int, clients: int) -> None:
        self._port, self._bodies = port, texts(200)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._numbers, self._requests = itertools.count(), requests
        self.asked: list[TimedRequest] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def wait_for(self, requests: int) -> None:
        while len(self.asked) < requests and any(thread.is_alive() for thread in self._threads):
            time.sleep(0.01)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while (number := next(self._numbers)) < self._requests:
            begun, release, error = time.perf_counter(), "", ""
            try:
                connection.request("POST", "/classify", self._bodies[number % len(self._bodies)], self._headers)
                answer = connection.getresponse()
                content = answer.read()
                release = json.loads(content)["release"] if answer.status == 200 else ""
                error = "" if answer.status == 200 else str(answer.status)
            except (OSError, http.client.HTTPException) as broken:
                error = type(broken).__name__
                connection.close()
            self.asked.append(TimedRequest(begun, time.perf_counter() - begun, release, error))
        connection.close()


def change(store: Path, port: int, fresh: Iterator[str], turn: int) -> Swap:
    """Every third change is a rollback, the others bring a release that no worker has seen."""
    begun = time.perf_counter()
    pointer = read_pointer(store)
    token = pointer.token if pointer else 0
    if turn % 3 == 2:
        moved = rollback(store, expected=token, who="benchmark", why=f"turn {turn}")
    else:
        moved = promote(store, next(fresh), expected=token, who="benchmark", why=f"turn {turn}", gate=None)
    wait_until_served(port, moved.champion)
    return Swap(begun, time.perf_counter(), moved.champion, str(moved.entry["action"]))


def failures(asked: list[TimedRequest], swaps: list[Swap]) -> Counter[str]:
    """Why requests failed; a release may answer from its promotion on until all workers serve the next one."""
    found = Counter(entry.error for entry in asked if entry.error)
    terms: dict[str, list[tuple[float, float]]] = {}
    for swap, following in zip(swaps, [*swaps[1:], None], strict=True):
        terms.setdefault(swap.release, []).append((swap.begun, following.ended if following else float("inf")))
    for entry in asked:
        ended = entry.begun + entry.seconds
        if not entry.error and not any(first <= ended and entry.begun <= last for first, last in terms.get(entry.release, [])):
            found["answered by a release that was not champion"] += 1
    return found


def in_swap(entry: TimedRequest, swaps: list[Swap]) -> bool:
    return any(swap.begun <= entry.begun + entry.seconds and entry.begun <= swap.ended for swap in swaps)


def milliseconds(asked: list[TimedRequest]) -> str:
    """p50, p99 and the longest, as one row."""
    if not asked:
        return "0 | - | - | -"
    p50, p99, longest = np.percentile([entry.seconds * 1000 for entry in asked], [50, 99, 100])
    return f"{len(asked):,} | {p50:.2f} | {p99:.2f} | {longest:.1f}"


def report(asked: list[TimedRequest], swaps: list[Swap], failed: Counter[str], recorded: int) -> None:
    seconds = max(entry.begun + entry.seconds for entry in asked) - min(entry.begun for entry in asked)
    changes = Counter(swap.action for swap in swaps[1:])
    print(f"| {WORKERS} workers | |\n| --- | ---: |")
    print(f"| requests | {len(asked):,} |\n| requests a second | {len(asked) / seconds:,.0f} |")
    print(f"| promotions, rollbacks | {changes['promote']}, {changes['rollback']} |")
    print(f"| failed requests | {sum(failed.values()):,} |\n| records in the journal | {recorded:,} |")
    print(f"| longest change until all workers serve it | {max(swap.ended - swap.begun for swap in swaps[1:]):.2f} s |")
    for release, count in Counter(entry.release for entry in asked if entry.release).items():
        print(f"| answered by {release} | {count:,} |")
    print("\n| requests | number | p50 ms | p99 ms | longest ms |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| quiet | {milliseconds([entry for entry in asked if not in_swap(entry, swaps[1:])])} |")
    print(f"| while the champion changes | {milliseconds([entry for entry in asked if in_swap(entry, swaps[1:])])} |")
    for why, count in failed.items():
        print(f"failed: {why}: {count:,}")


def main(requests: int, clients: int, turns: int) -> int:
    with tempfile.TemporaryDirectory(prefix="restill-") as name, socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
        opened.close()
        home = Path(name)
        fresh = iter([add(home / "store", copy) for copy in copies(home / "made", turns + 1)])
        key = add_key(home / "keys.json", "benchmark", ["classify"])
        first = promote(home / "store", next(fresh), expected=0, who="benchmark", why="start", gate=None)
        with service(home, port):
            wait_until_served(port, first.champion)
            swaps = [Swap(0, time.perf_counter(), first.champion, "bootstrap")]
            load = Load(port, key, requests, clients)
            load.start()
            for turn in range(turns):
                load.wait_for((turn + 1) * requests // (turns + 1))
                swaps.append(change(home / "store", port, fresh, turn))
            load.join()
        records = [record for path in segments(home / "journal") for record in read(path)]
    recorded = sum(record["kind"] == "answer" for record in records)
    failed = failures(load.asked, swaps)
    report(load.asked, swaps, failed, recorded)
    return 0 if not failed and recorded == requests else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promotion", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--swaps", type=int, default=10)
    given = parser.parse_args()
    sys.exit(main(given.requests, given.clients, given.swaps))
