"""The loop as it runs by `make up`, on a small slice of real mail: schedules, traffic, drift, kills, a new champion.

The tests follow each other like a day in service: each goes on where the one before it stopped. In the end a second workload,
of made images, joins.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import requests

from flows.process_group import left_behind
from service.journal import read, segments
from service.release import verify
from service.store import read_pointer, release_folder
from tasks.kinds.text_classification.replay.campaigns import CAMPAIGNS, message
from tasks.monitor.state import State
from tasks.release.store import history
from tests.bars import LABELS, add_bars, as_request, bars
from tests.imports import ROOT
from tests.project import SMALL, Project, write_real_slice
from tests.test_end_to_end import free_port

COUNT = 60
MARKER = "zyxmarker"
GATE: dict[str, dict[str, Any]] = {
    "golden": {"figure": "pr_auc", "margin": 1, "minimum": 0},
    "window": {"rows": 500, "minimum": 1, "margin": 1},
    "false_positives": {"maximum": 1, "margin": 1},
    "worst_slice": {"rows": 1, "margin": 1},
    "calibration": {"maximum": 1},
    "latency_us": {"maximum": 1000000, "times_champion": 100, "inputs": 5, "rounds": 2},
    "labels": {"probability": 0.2, "maximum": 1, "folds": 5, "min_documents": 3, "C": 10, "seed": 1},
}
LOOP: dict[str, dict[str, Any]] = {
    "train": {"epochs": 1},
    "package": SMALL["package"] | {"among": ["student-quantized", "student-pruned", "student", "teacher-onnx"]},
    # The models of the slice are poor; whether the gate is right is what its own tests ask.
    "gate": GATE,
}
DEPLOYMENTS = {
    "pipeline": {"seconds": 200, "cron": None},
    "monitor": {"seconds": 40, "cron": None},
    "restill": {"seconds": 40, "cron": None},
}
POLICY = {"floor": 20, "minimum": 20, "minimum_labels": 10, "recalibrate": {"floor": 100_000}}
"""Whatever drift there is, it is a restill that is to be seen here."""


def patient(what: str, seconds: float, ask: Callable[[], Any], told: Callable[[], str] = str) -> Any:
    """What ``ask`` says, once it says something; where it never does, the failure says what is ``told``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := ask():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds} s\n{told()}")


class Loop:
    """A project whose `make up` is running, and its workload mail; ``of`` gives another workload of it."""

    def __init__(self, project: Project, ports: dict[str, str], workload: str = "mail", number: int = 0) -> None:
        self.project, self.ports = project, ports
        self.base = project.root / "var"
        self.home = self.base / workload
        self.address = f"http://127.0.0.1:{int(ports['RESTILL_PORT']) + number}"
        self.answered: list[tuple[str, str]] = []
        self.unanswered = 0

    def of(self, workload: str, number: int) -> Loop:
        """The workload that is entry ``number`` of the project's."""
        return Loop(self.project, self.ports, workload, number)

    def make(self, target: str, check: bool = True) -> str:
        return self.project.run(f"make {target}", check=check).stdout

    def url(self, name: str, path: str = "") -> str:
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def served(self) -> str:
        """The release that answers."""
        return str(requests.get(f"{self.address}/model", timeout=5).json()["release"])

    def send(self, inputs: list[dict[str, Any]]) -> list[str]:
        """The ids of the answers. A service that is being started again is waited for; what it answers must be right."""
        ids = []
        for body in inputs:

            def ask(body: dict[str, Any] = body) -> Any:
                try:
                    answer = requests.post(f"{self.address}/classify", json=body, timeout=5)
                except requests.ConnectionError:
                    return None
                assert answer.status_code == 200, answer.text
                return answer.json()

            said = patient("an answer", 180, ask)
            self.answered.append((said["id"], said["release"]))
            ids.append(said["id"])
        return ids

    def label(self, identity: str, given: dict[str, Any], label: str) -> None:
        body = {"id": identity, "label": label} | given
        patient("feedback", 90, lambda: requests.post(f"{self.address}/feedback", json=body, timeout=5).ok)

    def state(self) -> State:
        return State(self.home / "monitor/state.db")

    @contextmanager
    def no_restill(self) -> Iterator[None]:
        """While this lasts, every run of restill sees that another is at work: no release changes, which ends a window."""
        with (self.home / "monitor/restill.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a run without an intent to act on lets it go at once
            yield

    def told(self) -> str:
        """What the journal and the monitor hold, and what the flows said last: why a wait was in vain."""
        base = sqlite3.connect(self.home / "monitor/state.db")
        tables = ("SELECT number, release, rows, labels FROM windows", "SELECT window, action, decided FROM decisions")
        asked = [*tables, "SELECT id, kind, window, step, outcome, created FROM intents"]
        held = {path.name: sum(record["kind"] == "answer" for record in read(path)) for path in segments(self.home / "journal")}
        said = [f"{question}: {base.execute(question).fetchall()}" for question in asked]
        last = (self.base / "log/deployments.log").read_text().splitlines()[-60:]
        return "\n".join([f"{len(self.answered)} were answered, the journal holds {held}", *said, *last])

    def runs(self) -> list[dict[str, Any]]:
        """Flow runs that finished, of all deployments."""
        body = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_DESC", "limit": 200}
        try:
            found: list[dict[str, Any]] = requests.post(
                self.url("PREFECT_PORT", "/api/flow_runs/filter"), json=body, timeout=10
            ).json()
        except requests.ConnectionError:
            return []
        return found

    def processes(self, part: str) -> list[psutil.Process]:
        """Processes below the supervisor whose command holds ``part``."""
        above = psutil.Process(int((self.base / "supervisord.pid").read_text()))
        found = []
        for process in above.children(recursive=True):
            try:
                if part in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self, part: str) -> int:
        """kill -9 to all of them; how many there were."""
        victims = self.processes(part)
        for process in victims:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        return len(victims)


def two_ports() -> str:
    """The first of two free ports side by side."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return str(port)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    project = Project(tmp_path_factory.mktemp("loop"))
    write_real_slice(project.folder / "data/mail")
    project.set(**SMALL)
    for name, changes in LOOP.items():
        project.set(**{name: changes})
    project.set(monitor={"windows": {"count": COUNT, "least_seconds": 0, "seconds": 86400, "minimum": 20}}, decide=POLICY)
    project.share(deployments=DEPLOYMENTS)
    project.run("git commit -qam parameters")
    ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "EVIDENTLY_PORT")} | {
        "RESTILL_PORT": two_ports()
    }
    project.environment |= ports | {"RESTILL_STATUS_SECONDS": "2"}
    made = Loop(project, ports)
    try:
        yield made
    finally:
        made.make("down", check=False)


@pytest.fixture(scope="module")
def mail(loop: Loop) -> pd.DataFrame:
    """Messages that no training saw, with their labels."""
    rows = pd.read_parquet(loop.project.folder / "data/prepared.parquet")
    return rows[rows.split.isin(["valid", "test", "golden"])].reset_index(drop=True)


def texts(messages: Iterable[str]) -> list[dict[str, Any]]:
    """The bodies of requests about them."""
    return [{"text": text} for text in messages]


def test_make_up_starts_all_of_it_and_says_where(loop: Loop) -> None:
    assert "\n    make up\n" in (ROOT / "README.md").read_text()
    said = loop.make("up")  # of a fresh clone: it trains and promotes the first release too
    for name in ("prefect", "mlflow", "service-mail", "deployments", "evidently"):
        assert any(line.startswith(name) and " up " in line for line in said.splitlines()), said
    for name, path in (("PREFECT_PORT", "/api/health"), ("MLFLOW_PORT", "/"), ("EVIDENTLY_PORT", "/")):
        with urllib.request.urlopen(loop.url(name, path), timeout=10) as answer:
            assert answer.status == 200
    pointer = read_pointer(loop.home / "store")
    assert pointer is not None
    assert pointer.entry["action"] == "bootstrap"
    assert loop.served() == pointer.champion
    listening = {c.laddr.ip for p in loop.processes("") for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::1"}, "loopback only"


def test_every_schedule_is_seen_to_fire(loop: Loop) -> None:
    flows = {"pipeline", "monitor", "restill"}

    def fired() -> bool:
        scheduled = [run for run in loop.runs() if run["auto_scheduled"]]
        names = {
            requests.get(loop.url("PREFECT_PORT", f"/api/flows/{run['flow_id']}"), timeout=5).json()["name"]
            for run in scheduled
        }
        return flows <= names

    patient("a finished run of every schedule", 480, fired)


def test_a_calm_window_is_judged_once_and_nothing_is_done(loop: Loop, mail: pd.DataFrame) -> None:
    loop.send(texts(mail.raw.sample(COUNT, random_state=1)))
    (seen,) = patient("a judged window", 600, lambda: loop.state().past(10**6, -1))
    assert seen.decision.action == "none", seen.decision.reasons
    patient("its report", 60, lambda: list((loop.home / "monitor/reports").glob("*.html")))


def test_kills_of_every_server_lose_no_window_and_no_answer(loop: Loop, mail: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    foreign = [message(CAMPAIGNS[number % len(CAMPAIGNS)], rng) for number in range(3 * COUNT + 20)]
    victims = ("prefect server", "bentoml", "mlflow ui", "flows.deployments", "prefect.engine", "evidently")
    each = len(foreign) // len(victims)
    with loop.no_restill():
        for number, part in enumerate(victims):
            sent = foreign[number * each : (number + 1) * each]
            sent[8:] = [f"{text} {MARKER}" for text in sent[8:]]  # no reviewer sees these
            bodies = texts(sent)
            for identity, body in list(zip(loop.send(bodies), bodies, strict=True))[:8]:
                loop.label(identity, body, "spam")
            loop.kill(part)
        patient("all of it up again", 300, lambda: loop.make("status", check=False).count(" up ") == 5)
        # Prefect's server on SQLite stands still for a minute when a process dies in the middle of a request.
        patient("every window judged", 900, lambda: len(loop.state().past(10**6, -1)) == 4, loop.told)
    left = left_behind(str(loop.base), None)
    below = {process.pid for process in loop.processes("")}
    assert not [p for p in left if p.pid not in below and p.is_running()], "no orphan is left of what died"
    judged = [row[0] for row in sqlite3.connect(loop.home / "monitor/state.db").execute("SELECT window FROM decisions")]
    assert sorted(judged) == [1, 2, 3, 4], "each window once"


def test_drift_ends_in_a_new_champion_whatever_dies_on_the_way(loop: Loop) -> None:
    intent = patient("an intent", 480, lambda: loop.state().open_intent("restill") or loop.state().attempts(), loop.told)
    assert intent
    before = read_pointer(loop.home / "store")
    assert before is not None
    lock = loop.home / "monitor/restill.lock"
    killed: set[int] = set()

    def at_work() -> int | None:
        """The process that acts on the intent; -1 where the intent has ended."""
        if loop.state().intent(1).outcome is not None:
            return -1
        number = int(lock.read_text() or 0)
        return number if number not in killed and psutil.pid_exists(number) else None

    for delay in (1, 4, 10, 20):
        victim = patient("a run that acts on the intent", 600, at_work, loop.told)
        time.sleep(delay)
        if victim > 0 and psutil.pid_exists(victim) and loop.state().intent(1).outcome is None:
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    assert len(killed) >= 2, "the intent was over before it could be disturbed"
    outcome = patient("the intent to end", 900, lambda: loop.state().intent(1).outcome, loop.told)
    assert outcome == "promoted", loop.state().intent(1).facts
    pointer = read_pointer(loop.home / "store")
    assert pointer is not None
    assert pointer.token == before.token + 1, "promoted once"
    assert [entry["token"] for entry in history(loop.home / "store")] == list(range(1, pointer.token + 1))
    assert verify(release_folder(loop.home / "store", pointer.champion)) == pointer.champion
    patient("the service to swap", 120, lambda: loop.served() == pointer.champion)
    (branch,) = loop.project.run("git branch --list --format '%(refname:short)' 'restill/mail/intent-1-*'").stdout.split()
    held = loop.project.run(f"git show {branch}:workloads/mail/params.yaml").stdout
    assert "until: '20" in held
    prepared = loop.project.run(f"git show {branch}:dvc.lock").stdout
    assert "data/feedback.jsonl" in prepared


def test_no_text_of_a_request_is_kept_but_as_feedback(loop: Loop) -> None:
    loop.send(texts([f"{MARKER} is in no mail of that time"]))
    time.sleep(2)
    root = loop.project.root
    searched = 0
    for place in (
        loop.base,
        loop.project.folder / "reports",
        root / "mlartifacts",
        root / ".bentoml",
        root.parent / f"{root.name}-prefect",
    ):
        for path in [*place.rglob("*"), root / "mlflow.db"]:
            try:
                if path.is_file() and not path.is_symlink():
                    searched += 1
                    assert MARKER.encode() not in path.read_bytes(), path
            except FileNotFoundError:  # a flow that is at work tidied up
                continue
    assert searched > 100


def test_a_workload_of_another_kind_joins_drifts_and_is_restilled_and_mail_is_left_alone(loop: Loop) -> None:
    policy = POLICY | {"confirm_within": 4}
    windows = {"count": COUNT, "least_seconds": 0, "seconds": 86400, "minimum": 20}
    add_bars(loop.project, gate=GATE, monitor={"windows": windows}, decide=policy)
    held = {path: path.read_bytes() for path in mail_files(loop)}
    mail_service = loop.processes("serve restill-mail:")
    said = loop.make("up WORKLOAD=bars")
    assert any(line.startswith("service-bars") and " up " in line for line in said.splitlines()), said
    assert mail_service
    assert all(process.is_running() for process in mail_service), "what ran goes on"
    images = loop.of("bars", 1)
    first = images.served()
    pictures, truth = bars(5 * COUNT, seed=7)
    images.send([as_request(picture) for picture in pictures[:COUNT]])
    (calm,) = patient("a judged window of images", 600, lambda: images.state().past(10**6, -1), images.told)
    assert calm.decision.action == "none", calm.decision.reasons
    for number, (picture, label) in enumerate(zip(pictures[COUNT:], truth[COUNT:], strict=True)):
        changed = as_request(255 - picture)
        (identity,) = images.send([changed])
        if number % 4 == 0:  # at once: a label belongs to the window in which it comes
            images.label(identity, changed, LABELS[label])
    intent = patient("an intent", 600, lambda: images.state().open_intent("restill") or images.state().attempts(), images.told)
    assert intent
    assert loop.kill("restill-bars:")
    assert loop.kill("flows.deployments")
    assert patient("the intent to end", 900, lambda: images.state().intent(1).outcome, images.told) == "promoted"
    pointer = read_pointer(images.home / "store")
    assert pointer is not None
    assert pointer.champion != first
    assert pointer.token == 2, "promoted once"
    patient("the service to swap", 120, lambda: images.served() == pointer.champion)
    assert {path: path.read_bytes() for path in mail_files(loop)} == held, "nothing of mail has changed"


def mail_files(loop: Loop) -> list[Path]:
    """What mail's model, release and decisions are kept in."""
    folder = loop.project.folder
    return [*folder.glob("params.yaml"), *folder.glob("release/**/*.json"), *(loop.home / "store").rglob("*.json")]


def test_make_down_leaves_nothing_running(loop: Loop) -> None:
    left = loop.processes("")
    loop.make("down")
    patient(
        "every process to end",
        120,
        lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left),
    )
    assert not left_behind(str(loop.base), None)
    log = (loop.base / "log/supervisord.log").read_text()
    stopped = [line for line in log.splitlines() if "stopped: service-mail" in line]
    assert stopped
    assert "SIGKILL" not in stopped[-1], "killed while it stopped: what its journal had not written is lost"
    done = loop.project.run("make status", check=False)
    assert done.returncode != 0
    assert "make up" in done.stderr
