"""A flow's command ends by a signal with all it started, and begins where it can work, or says what is missing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows.file_lock import OWNER, end_owned, free_rwlock, own
from tasks.stage import Paths
from tasks.tracking import process_name
from tests.imports import ROOT

STAGE = (
    "import os,time;open('pid','w').write(str(os.getpid()));"
    "time.sleep(0 if os.path.exists('go') else 300);open('o','w').write('x')"
)


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has no Prefect server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RESTILL_", "MLFLOW_"))}
    return kept | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect it's? ")), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one stage that takes five minutes, unless a file `go` is there."""
    root = tmp_path / "it's #1?"
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=root, check=True)
    stages = {"work": {"cmd": f'{sys.executable} -c "{STAGE}"', "outs": ["o"]}}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    return root


def default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def background() -> None:
    """As a shell script starts what has an ampersand behind it."""
    default_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start(project: Path, environment: dict[str, str], prepared: object = default_signals) -> subprocess.Popen[bytes]:
    """A run whose output goes to a file: a pipe would stay open as long as an orphan lives."""
    with (project / "log").open("wb") as log:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [sys.executable, "-m", "flows.pipeline"], cwd=project, env=environment, stdout=log, stderr=log, preexec_fn=prepared,
        )  # fmt: skip


def log_of(project: Path) -> str:
    return (project / "log").read_text(encoding="utf-8")


def started(process: subprocess.Popen[bytes], project: Path) -> list[psutil.Process]:
    """All processes of a run whose stage is at work: Prefect's server, DVC, the stage."""
    pid = project / "pid"
    while not (pid.exists() and pid.read_text(encoding="utf-8")):
        assert process.poll() is None, log_of(project)
        time.sleep(0.1)
    found = psutil.Process(process.pid).children(recursive=True)
    pid.unlink()
    words = [" ".join(child.cmdline()) for child in found]
    assert any("uvicorn" in line for line in words), words
    assert any("dvc repro" in line for line in words), words
    return found


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("number", "prepared"), [(signal.SIGTERM, default_signals), (signal.SIGHUP, background), (signal.SIGINT, default_signals)]
)
def test_a_signal_ends_all_that_a_run_has_started(
    project: Path, surroundings: dict[str, str], number: signal.Signals, prepared: object
) -> None:
    process = start(project, surroundings, prepared)
    others = started(process, project)
    process.send_signal(number)
    assert process.wait(120) == 128 + number
    said = log_of(project)
    assert said.splitlines()[-1] == f"pipeline: stopped by {number.name}; the next run goes on from there"
    assert not re.search(r"Traceback|NoneType|ERROR|INFO|Error logging", said), said
    assert not living(others)
    assert json.loads((project / ".dvc/tmp/rwlock").read_text(encoding="utf-8")).get("write", {}) == {}, (
        "DVC let go of its lock"
    )


def test_what_a_kill_leaves_the_next_run_ends_and_goes_on(project: Path, surroundings: dict[str, str]) -> None:
    process = start(project, surroundings)
    others = started(process, project)
    process.kill()
    process.wait()  # what it leaves works on, until the next flow of anybody on this machine ends it: also another test's
    (project / ".dvc/tmp/rwlock").write_text("", encoding="utf-8")  # and DVC was just writing it
    (project / "go").touch()
    start(project, surroundings).wait(180)
    said = log_of(project)
    assert not living(others)
    assert "stage 1 of 1: work" in said
    assert (project / "o").read_text(encoding="utf-8") == "x"


def run(project: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.pipeline", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
            "PREFECT_API_URL = http://127.0.0.1:9/api: no Prefect server answers there",
        ),
        ({"PREFECT_API_URL": "nonsense"}, "PREFECT_API_URL = nonsense: no Prefect server answers there"),
        ({"PREFECT_HOME": "/proc/none"}, "/proc/none: cannot be made"),
        ({"RESTILL_HOME": "/proc/none"}, "/proc/none: cannot be made"),
        ({"RESTILL_HOME": "/dev/null"}, "/dev/null: cannot be made"),
    ],
)
def test_surroundings_in_which_no_run_can_work_are_one_line(
    project: Path, surroundings: dict[str, str], given: dict[str, str], says: str
) -> None:
    done = run(project, surroundings | given)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"pipeline: {says}")
    assert "Traceback" not in done.stderr
    assert run(project, surroundings | given, "--help").returncode == 0


def stages(project: Path, **given: dict[str, object]) -> None:
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": given}, sort_keys=False), encoding="utf-8")


def shown(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on the console, without the seconds that stages took."""
    assert (done.returncode, done.stdout) == (1, "")
    return re.sub(r"\d+\.\d s", "N s", done.stderr).splitlines()


def test_what_a_failing_run_says_stands_once_on_the_console(project: Path, surroundings: dict[str, str]) -> None:
    code = "import sys;print('reading');sys.exit('work: no luck')"
    stages(project, work={"cmd": f'{sys.executable} -c "{code}"', "outs": ["o"], "meta": {"retries": 1}})
    assert shown(run(project, surroundings)) == [
        "stage 1 of 1: work", "  reading", "  work: no luck", "  failed with exit code 1, N s",
        "stage 1 of 1: work, try 2", "  reading", "  failed with exit code 1, N s",
        "pipeline: work failed with exit code 1: no luck",
    ]  # fmt: skip
    stages(project, work={"cmd": "true", "deps": ["gone"], "outs": ["o"]})
    first, second, last = shown(run(project, surroundings))
    assert (first, second) == ("stage 1 of 1: work", "  failed, N s")
    assert re.fullmatch(r"pipeline: work failed: \[Errno 2\] No such file or directory: .*gone.", last)


def test_an_effect_that_cannot_work_is_one_line(project: Path, surroundings: dict[str, str]) -> None:
    stages(project, work={"cmd": "touch o", "outs": ["o"]})
    *_, stage, last = shown(run(project, surroundings))
    assert stage == "  N s"
    assert re.match(r"pipeline: register: .*manifest\.json: cannot be read: ", last)


def test_a_file_that_cannot_be_read_is_one_line_with_its_place(project: Path, surroundings: dict[str, str]) -> None:
    stages(project, work={"cmd": "touch o", "outs": ["o"]})
    params = project / "params.yaml"
    params.write_text("ingest: {path: gone}\n", encoding="utf-8")
    missing = "pipeline: params.yaml: ingest.path = gone: there is no such file or folder"
    assert shown(run(project, surroundings)) == [missing]
    params.write_text("a: 1\nb: [1, 2\nc: 3\n", encoding="utf-8")
    for words in ((), ("-S", "a=2")):
        (line,) = shown(run(project, surroundings, *words))
        assert re.match(r"pipeline: params\.yaml: line 3, column 2: .*expected ',' or ']'", line)


def test_a_folder_without_git_is_one_line_that_says_what_to_do(project: Path, surroundings: dict[str, str]) -> None:
    (project / ".git").rename(project / "not.git")
    done = run(project, surroundings)
    assert done.returncode == 1
    assert "is not a git repository, and DVC asks for one: say `git init`, or" in done.stderr.splitlines()[-1]
    subprocess.run(["dvc", "config", "--local", "core.no_scm", "true"], cwd=project, check=True)
    from flows.graph import read_graph

    assert [node.name for node in read_graph(Paths(project))] == ["work"]


def test_only_what_a_dead_owner_started_is_ended() -> None:
    host, _, _ = process_name().split("/")
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owners = {
        "dead": f"{host}/{dead.pid}/1.00",
        "elsewhere": f"another-{host}/{dead.pid}/1.00",
        "ours": process_name(),
        "odd": "odd",
    }
    running = {name: subprocess.Popen(sleep, env=os.environ | {OWNER: owner}) for name, owner in owners.items()}
    try:
        assert own() == 1
        assert {name for name, process in running.items() if process.poll() is None} == {"elsewhere", "ours", "odd"}
        assert end_owned() == 1
        assert {name for name, process in running.items() if process.poll() is None} == {"elsewhere", "odd"}
    finally:
        del os.environ[OWNER]
        for process in running.values():
            process.kill()
            process.wait()


def test_dvc_s_lock_stays_with_a_dvc_at_work_and_with_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    free_rwlock(tmp_path)
    busy = tmp_path / "dvc"
    busy.write_text("import time; time.sleep(60)", encoding="utf-8")
    with subprocess.Popen([sys.executable, str(busy), "repro"]) as other:
        held = {"read": {}, "write": {"o": {"pid": other.pid, "cmd": "dvc repro"}}}
        path.write_text(json.dumps(held), encoding="utf-8")
        free_rwlock(tmp_path)
        assert path.exists()
        other.kill()
    for content in (json.dumps(held), json.dumps({"read": {"o": [{"pid": os.getpid()}]}, "write": {}}), "", "[]", "{", "null"):
        path.write_text(content, encoding="utf-8")  # a number that is another process's now, or half a file
        free_rwlock(tmp_path)
        assert not path.exists(), content
