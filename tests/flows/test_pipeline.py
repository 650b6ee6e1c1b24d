"""flows/: DVC's graph is read as it is, and each stage ends as what it was: completed, cached, failed, too late."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.graph import Node, read_graph
from flows.pipeline import pipeline, run_stage
from tasks.lineage import lock_hash
from tasks.stage import Paths, StageError
from tests.imports import MAIL, ROOT


def test_the_graph_is_dvc_s_own() -> None:
    nodes = read_graph(Paths(MAIL))
    edges = {(need, node.name) for node in nodes for need in node.needs}
    drawn = subprocess.run(["dvc", "dag", "--dot"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert edges == set(re.findall(r'"(\w+)@mail" -> "(\w+)@mail"', drawn))
    assert {node.name for node in nodes} == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    place = {node.name: number for number, node in enumerate(nodes)}
    assert all(place[need] < place[node.name] for node in nodes for need in node.needs)


def test_meta_carries_retries_and_timeouts() -> None:
    nodes = {node.name: node for node in read_graph(Paths(MAIL))}
    assert nodes["train"].retries == 1
    assert nodes["train"].timeout == 14400
    assert all(node.timeout and node.desc for node in nodes.values())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DVC project."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["dvc", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def write_stages(project: Path, **stages: dict[str, Any]) -> None:
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def python(code: str) -> str:
    return f'{sys.executable} -c "{code}"'


def node(name: str = "work", timeout: float | None = None) -> Node:
    return Node(name, "", 0, timeout, "work.size", None, (), "", (), ())


def test_a_parameter_of_one_workload_reruns_nothing_of_another(project: Path) -> None:
    (project / "params.yaml").write_text("workloads: [a, b]\n")
    folders = [project / "workloads" / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text(f"work: {{name: {folder.name}}}\n")
    write_stages(
        project,
        work={
            "matrix": {"workload": "${workloads}"},
            "wdir": "workloads/${item.workload}",
            "vars": ["params.yaml"],
            "cmd": "echo ${work.name} > out.txt",
            "params": ["work"],
            "outs": ["out.txt"],
        },
    )

    def run(folder: Path) -> str | None:
        (stage,) = read_graph(Paths(folder))
        assert (stage.name, stage.address) == ("work", f"work@{folder.name}")
        return run_stage(stage, Paths(folder), False, "t").name

    assert [run(folder) for folder in folders] == ["Completed", "Completed"]
    assert [(folder / "out.txt").read_text() for folder in folders] == ["a\n", "b\n"]
    before = [lock_hash(project, folder.name) for folder in folders]
    (folders[1] / "params.yaml").write_text("work: {name: c}\n")
    assert [run(folder) for folder in folders] == ["Cached", "Completed"]
    after = [lock_hash(project, folder.name) for folder in folders]
    assert before[0] == after[0], "a release's lineage counts its own workload's stages alone"
    assert before[1] != after[1]


def test_a_stage_runs_once_and_is_cached_then(project: Path) -> None:
    write_stages(project, work={"cmd": python("open('out','w').write('x');print('all is well')"), "outs": ["out"]})
    first = run_stage(node(), Paths(project), False, "t")
    assert (first.type.value, first.name, first.message) == ("COMPLETED", "Completed", "all is well")
    assert run_stage(node(), Paths(project), False, "t").name == "Cached"
    assert run_stage(node(), Paths(project), True, "t").name == "Completed"


def test_a_failing_stage_shows_its_own_last_lines(project: Path) -> None:
    write_stages(
        project, work={"cmd": python("import sys;print('reading');sys.exit('work: data.csv is broken')"), "outs": ["o"]}
    )
    state = run_stage(node(), Paths(project), False, "t")
    assert state.is_failed()
    assert str(state.message).splitlines() == ["work failed with exit code 1:", "reading", "work: data.csv is broken"]


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ({"cmd": "kill -9 $$", "outs": ["o"]}, "work was ended by SIGKILL"),
        ({"cmd": "exit 3", "outs": ["o"]}, "work failed with exit code 3"),
        ({"cmd": "true", "outs": ["o"]}, "work failed:\nERROR: failed to reproduce 'work': output 'o' does not exist"),
    ],
)
def test_how_a_stage_failed_is_its_own_exit_code_and_not_dvc_s(project: Path, stage: dict[str, Any], says: str) -> None:
    write_stages(project, work=stage)
    assert run_stage(node(), Paths(project), False, "t").message == says


def ended(pid: int) -> bool:
    """Whether a process is gone within ten seconds, or waits only for its new parent to take note of its end."""
    try:
        process = psutil.Process(pid)
        for _ in range(100):
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            time.sleep(0.1)
    except psutil.NoSuchProcess:
        return True
    return False


def test_a_stage_that_takes_too_long_is_stopped_with_all_it_started(project: Path) -> None:
    code = "import os,time;open('pid','w').write(str(os.getpid()));time.sleep(60)"
    write_stages(project, work={"cmd": python(code), "outs": ["o"]})
    start = time.monotonic()
    state = run_stage(node(timeout=4), Paths(project), False, "t")
    assert state.is_failed()
    assert state.message == "work took longer than 4 s: raise its meta.timeout in dvc.yaml, or change work.size in params.yaml"
    assert time.monotonic() - start < 50
    assert ended(int((project / "pid").read_text()))
    write_stages(project, work={"cmd": python("open('o','w')"), "outs": ["o"]})
    assert run_stage(node(), Paths(project), False, "t").is_completed(), "no lock was left behind"


def test_the_invocation_reaches_the_stage(project: Path) -> None:
    code = "import os;open('o','w').write(os.environ['RESTILL_INVOCATION'])"
    write_stages(project, work={"cmd": python(code), "outs": ["o"]})
    run_stage(node(), Paths(project), False, "flow-7")
    assert (project / "o").read_text() == "flow-7"


def test_the_flow_retries_as_meta_says_and_stops_at_the_first_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from prefect.testing.utilities import prefect_test_harness

    flaky = (
        "import sys,pathlib;p=pathlib.Path('tries');n=len(p.read_text()) if p.exists() else 0;"
        "p.write_text('x'*(n+1));open('a','w');sys.exit(n==0)"
    )
    write_stages(
        project,
        flaky={"cmd": python(flaky), "outs": ["a"], "meta": {"retries": 1}},
        broken={"cmd": python("import sys;sys.exit('broken: no luck')"), "deps": ["a"], "outs": ["b"]},
        never={"cmd": python("open('c','w')"), "deps": ["b"], "outs": ["c"]},
    )
    with prefect_test_harness():
        state = pipeline(project, return_state=True)
    assert state.is_failed()
    assert "broken: no luck" in str(state.message)
    assert (project / "tries").read_text() == "xx"
    assert not (project / "c").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages: [", r"^dvc\.yaml: line \d+, column \d+: "),
        (
            "stages:\n  a:\n    cmd: x\n    meta: {retires: 3}\n",
            "meta knows retries, seconds, shorter and timeout, not retires",
        ),
    ],
)
def test_a_graph_that_cannot_be_read_is_one_clear_error(project: Path, text: str, says: str) -> None:
    (project / "dvc.yaml").write_text(text)
    with pytest.raises(StageError, match=says):
        read_graph(Paths(project))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--help"], 0, "write this value to params.yaml first"),
        (["-S", "quantize.no_such=1"], 1, "pipeline: "),
        (["--no-such-option"], 2, "unrecognized arguments"),
    ],
)
def test_the_command_line(arguments: list[str], code: int, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.pipeline", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
