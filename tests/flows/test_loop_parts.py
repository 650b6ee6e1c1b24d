"""Parts of the loop that need no server: what is left of an intent, what a dead run becomes, what a status line says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Late, Pending, Running, Scheduled

from flows.deployments import _settled
from flows.file_lock import end_orphans, graph_lock, run_lock
from flows.notice import name_of, outcome_of, summary
from flows.restill import STEPS, remaining
from flows.status import DEFAULTS, ServedPlace, lines
from tasks.monitor.state import Intent
from tasks.stage import Paths
from tasks.tracking import INVOCATION_VARIABLE
from tests.imports import ROOT

INTENT = Intent(1, "restill", "2026-01-01T00:00:00+00:00", "d", 3, "open", {}, None)


@pytest.mark.parametrize(
    ("step", "facts", "tree", "left"),
    [
        ("open", {}, False, list(STEPS)),
        ("snapshot", {}, True, list(STEPS)[1:]),
        ("gate", {}, True, list(STEPS)[3:]),
        ("gate", {}, False, list(STEPS)),
        ("promote", {"promoted": True}, False, list(STEPS)[4:]),
        ("push", {"promoted": True}, True, ["notify"]),
        ("notify", {"promoted": False}, False, []),
    ],
)
def test_an_intent_goes_on_behind_its_last_step(
    step: str, facts: dict[str, Any], tree: bool, left: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "tree"
    if tree:
        folder.mkdir()
    assert remaining(replace(INTENT, step=step, facts=facts), folder) == left


def test_what_a_release_was_made_of_is_committed_before_anything_that_may_be_away() -> None:
    order = list(STEPS)
    assert order.index("promote") + 1 == order.index("commit") < order.index("bento") < order.index("push")


def test_a_state_that_begins_anew_does_not_meet_the_names_of_the_old_one() -> None:
    assert name_of(INTENT) == "intent-1-20260101T000000"
    assert name_of(replace(INTENT, created="2026-02-01T01:00:00+01:00")) == "intent-1-20260201T000000"


def test_the_summary_says_what_became_of_an_intent() -> None:
    promoted = replace(INTENT, facts={"promoted": True, "release": "abc", "bento": "restill:abc"})
    assert "abc was promoted" in summary(promoted)
    refused = replace(INTENT, facts={"promoted": False, "release": "abc", "failed": ["golden: worse"]})
    assert "refused: golden: worse" in summary(refused)
    assert "no data" in summary(replace(INTENT, facts={"error": "no data"}))


@pytest.mark.parametrize(
    ("facts", "outcome", "said"),
    [
        ({"release": "abc", "error": "MLflow is away"}, "failed", ": MLflow is away"),
        ({"release": "abc", "passed": True, "failed": [], "error": "disk full"}, "failed", ": disk full"),
        ({"release": "abc", "promoted": True, "error": "no remote"}, "promoted", "(bento None); after that: no remote"),
        (
            {"release": "abc", "promoted": False, "failed": ["bad"], "error": "away"},
            "rejected",
            "refused: bad; after that: away",
        ),
    ],
)
def test_an_intent_that_fails_on_the_way_is_told_as_it_is(facts: dict[str, Any], outcome: str, said: str) -> None:
    intent = replace(INTENT, facts=facts)
    assert outcome_of(intent) == outcome
    assert summary(intent).endswith(said)


@pytest.mark.parametrize(
    ("state", "becomes"),
    [(Running(), "Crashed"), (Pending(), "Crashed"), (Late(), "Cancelled"), (Completed(), None), (Scheduled(), None)],
)
def test_a_start_settles_what_an_earlier_process_left(state: object, becomes: str | None) -> None:
    run = FlowRun.model_construct(state=state, state_type=state.type, state_name=state.name)  # type: ignore[attr-defined]
    settled = _settled(run)
    assert (settled.name if settled else None) == becomes


def test_one_run_of_a_flow_works_and_a_dead_one_is_no_hindrance(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    holder = (
        "import sys, time; from pathlib import Path; from flows.file_lock import run_lock; from tasks.stage import Paths\n"
        f"with run_lock(Paths(Path({str(tmp_path)!r})), 'restill') as free:\n    print(free, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        with run_lock(paths, "restill") as free:
            assert not free
        with run_lock(paths, "monitor") as free:
            assert free
        assert (paths.monitor / "restill.lock").read_text() == str(process.pid)
        process.kill()
    with run_lock(paths, "restill") as free:
        assert free


def test_pipelines_of_two_workloads_take_turns(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with graph_lock(tmp_path):
            order.append("second")

    with graph_lock(tmp_path):
        waiting = Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_what_a_killed_run_left_at_work_is_ended(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "tree-2"
    for folder in (tree / ".dvc/tmp", elsewhere):
        folder.mkdir(parents=True)
    (tree / ".dvc/tmp/rwlock").touch()
    (tmp_path / "link").symlink_to(tree)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    marked = os.environ | {INVOCATION_VARIABLE: "intent-1"}
    with (
        subprocess.Popen(sleeper, cwd=tree, env=marked) as orphan,
        subprocess.Popen(sleeper, cwd=tree) as reviewer,
        subprocess.Popen(sleeper, cwd=elsewhere, env=marked) as other,
    ):
        assert end_orphans(tmp_path / "link") == 1
        assert not psutil.pid_exists(orphan.pid)
        assert reviewer.poll() is other.poll() is None
        for process in (reviewer, other):
            process.kill()
    assert not (tree / ".dvc/tmp/rwlock").exists()
    assert end_orphans(tree) == 0


def test_a_webhook_that_is_no_address_is_told_at_once_and_not_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.restill"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"RESTILL_WEBHOOK": "hooks.example/token"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("restill: RESTILL_WEBHOOK is no address")
    assert "hooks.example" not in done.stderr


def test_a_schedule_without_a_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    done = subprocess.run([sys.executable, "-m", "flows.deployments"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("deployments: PREFECT_API_URL is not set")
    assert "make up" in done.stderr


@pytest.mark.parametrize(
    "module", ["monitor", "restill", "deployments", "status", "replay", "serve", "bootstrap", "supervisor"]
)
def test_every_flow_has_a_help_and_refuses_what_it_does_not_know(module: str) -> None:
    run = [sys.executable, "-m", f"flows.{module}"]
    helped = subprocess.run([*run, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert helped.returncode == 0
    assert f"flows.{module}" in helped.stdout
    assert subprocess.run([*run, "--no-such"], cwd=ROOT, capture_output=True, check=False).returncode == 2


def test_a_status_line_says_up_only_of_what_answers() -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    Thread(target=server.serve_forever, daemon=True).start()
    places = {name: ServedPlace(server.server_port, path) for name, path in (("service-a", "/readyz"), ("mlflow", "/health"))}
    shown, well = lines({"service-a": "RUNNING", "mlflow": "RUNNING", "deployments": "FATAL"}, places)
    server.shutdown()
    assert not well
    assert shown[0].split()[:2] == ["service-a", "up"]
    assert shown[1].split()[:2] == ["mlflow", "starting"]
    assert shown[2].split()[:2] == ["deployments", "fatal"]
    assert lines({"service-a": "RUNNING"}, places)[1] is False, "the server is gone"


SUPERVISED = """
[supervisord]
logfile=%(ENV_RESTILL_HOME)s/supervisord.log
pidfile=%(ENV_RESTILL_HOME)s/supervisord.pid
[unix_http_server]
file=%(ENV_RESTILL_HOME)s/s.sock
[supervisorctl]
serverurl=unix://%(ENV_RESTILL_HOME)s/s.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:deployments]
command=sleep 60
startsecs=0
"""


def test_status_finds_what_runs_without_the_variables_of_make(tmp_path: Path) -> None:
    for folder in ("var", "workloads/mail"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/supervisord.conf").write_text(SUPERVISED)
    (tmp_path / "params.yaml").write_text("workloads: [mail]\n")
    (tmp_path / "workloads/mail/params.yaml").write_text("{}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTILL_")}
    with_home = environment | {"RESTILL_HOME": str(tmp_path / "var"), "PYTHONPATH": str(ROOT)}
    subprocess.run(["supervisord", "-c", "var/supervisord.conf"], cwd=tmp_path, env=with_home, check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.status"], cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == ["deployments", "up"]
    finally:
        subprocess.run(["supervisorctl", "-c", "var/supervisord.conf", "shutdown"], cwd=tmp_path, env=with_home, check=True)


def test_status_and_make_have_the_same_defaults() -> None:
    made = (ROOT / "Makefile").read_text()
    for name, value in DEFAULTS.items():
        assert re.search(rf"export {name} \?= {re.escape(value)}$", made, re.M), name
