"""The real graph on a small slice of the real corpus, through the commands that README shows, to answers over HTTP.

The tests of this module follow each other like a user's first hour: each goes on where the one before it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import yaml

from benchmarks.evasion import MESSAGES, changes, select_messages
from benchmarks.obfuscations import OBFUSCATIONS
from service.release import Release
from tasks.files import sqlite_uri
from tasks.stage import Paths
from tests.imports import MAIL, ROOT
from tests.project import SMALL, Project, write_real_slice

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def readme_commands() -> list[str]:
    """Every command in the ``sh`` blocks of README and docs/pipeline.md, a line each; a backslash at its end joins lines."""
    pages = "".join((ROOT / name).read_text() for name in ("README.md", "docs/pipeline.md"))
    blocks = re.findall(r"```sh\n(.*?)```", pages, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [command for line in lines if (command := line.partition("  #")[0].strip()) and not command.startswith("#")]


EXECUTED: set[str] = set()
"""README's commands that a test of this module has asked for, and run."""


def readme_command(part: str) -> str:
    found = [command for command in readme_commands() if part in command]
    assert found, f"README shows no command with {part!r}"
    EXECUTED.add(found[0])
    return found[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("clone") / "Jörg's #1 what? [x] & (y); ~ !")  # a name that must not matter
    write_real_slice(made.folder / "data/mail")
    made.set(**SMALL)
    return made


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@contextmanager
def running(project: Project, command: str, port: int, path: str) -> Iterator[None]:
    """A server of README, on a port of our own, until it answers on ``path``; stopped with all it started."""
    with (project.root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=project.root, env=project.environment | {"PORT": str(port)},
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(240):
            assert process.poll() is None, (project.root / "server.log").read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((project.root / "server.log").read_text()[-3000:])
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def lock_of(project: Project) -> str:
    return (project.root / "dvc.lock").read_text()


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_make_run_ends_with_a_table_a_release_and_a_bento(project: Project) -> None:
    done = project.run(readme_command("make run"))
    for variant in yaml.safe_load((MAIL / "params.yaml").read_text())["evaluate"]["variants"]:
        assert variant in done.stdout
    release = project.run("python -m service.release workloads/mail/release").stdout.strip()
    assert f"Bento restill-mail:{release}-" in done.stdout
    assert f"ran {', '.join(STAGES)}, register, bento" in done.stdout
    assert project.run("bentoml list -o json").stdout.count(release) >= 1
    changed = {line.strip() for line in project.run("git status --porcelain").stdout.splitlines()}
    assert changed == {"M workloads/mail/params.yaml", "?? dvc.lock", "?? workloads/mail/data/mail/"}, (
        "outputs are DVC's, not git's"
    )


def test_no_obfuscation_changes_what_the_release_answers(project: Project) -> None:
    """The suite of ``python -m benchmarks.evasion``, on the release of the small slice."""
    mail = project.folder / "data/mail"
    raws = select_messages(
        Paths(project.folder), {path.relative_to(mail).as_posix(): path.read_bytes() for path in mail.glob("*/*.eml")}
    )
    assert len(raws) == 2 * MESSAGES
    moved = changes(Release(project.folder / "release"), raws)
    assert set(moved) == set(OBFUSCATIONS)
    assert {name: change.mean() for name, change in moved.items() if change.mean() > 0.1} == {}
    assert {name: change.max() for name, change in moved.items() if change.max() > 0.3} == {}


def test_every_message_is_accounted_for(project: Project) -> None:
    ingested = json.loads((project.folder / "reports/ingest.json").read_text())
    assert ingested["rows"] == sum(1 for _ in (project.folder / "data/mail").rglob("*.eml"))
    assert ingested["rows"] == ingested["corpus"] + sum(ingested["quarantined"].values())


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    lock = lock_of(project)
    done = project.run(readme_command("make run"))
    assert "nothing to do: every stage is up to date" in done.stdout
    assert lock_of(project) == lock


def test_the_flow_reports_to_a_server_that_is_there(project: Project) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    server = f"PREFECT_HOME=$PREFECT_HOME-server prefect server start --host 127.0.0.1 --port {port}"
    with running(project, server, port, "/api/health"):
        project.run(f"PREFECT_API_URL={api} make run")

        def ask(path: str) -> list[dict[str, str]]:
            request = urllib.request.Request(f"{api}{path}", b"{}", {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                found: list[dict[str, str]] = json.load(answer)
            return found

        assert [run["state_name"] for run in ask("/flow_runs/filter")] == ["Completed"]
        states = {run["name"].rsplit("-", 1)[0]: run["state_name"] for run in ask("/task_runs/filter")}
        assert states == dict.fromkeys([*STAGES, "register", "bento"], "Cached") | {"publish": "Completed"}
        assert {artifact["key"] for artifact in ask("/artifacts/filter")} == {"evaluation", "reports"}


BY_CONTENT = (
    "data/",
    "models/teacher",
    "models/student",
    "models/baseline",
    "reports/ingest",
    "reports/prepare",
    "reports/train.csv",
)
"""Outputs that two runs make alike to the byte; the others hold times, measured speeds and ids of runs."""


def hashes_of(lock: str) -> dict[str, str]:
    stages = yaml.safe_load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"] if out["path"].startswith(BY_CONTENT)}


def test_dvc_repro_agrees_with_the_flow(project: Project) -> None:
    lock = lock_of(project)
    assert "Data and pipelines are up to date." in project.run(readme_command("dvc repro")).stdout
    assert lock_of(project) == lock
    (project.root / "dvc.lock").unlink()
    for name in ("data/prepared.parquet", "models", "release"):
        path = project.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    project.run("dvc repro --force --no-run-cache")
    again = yaml.safe_load(lock_of(project))["stages"]
    first = yaml.safe_load(lock)["stages"]
    assert hashes_of(lock) == hashes_of(lock_of(project))
    assert {n: (s["cmd"], s["params"], [d["path"] for d in s["deps"]]) for n, s in first.items()} == {
        n: (s["cmd"], s["params"], [d["path"] for d in s["deps"]]) for n, s in again.items()
    }


def test_metrics_params_and_plots_are_dvc_s_too(project: Project) -> None:
    assert "student-quantized" in project.run(readme_command("dvc metrics show")).stdout
    metrics = json.loads(project.run("dvc metrics show --json").stdout)[""]["data"]["workloads/mail/reports/evaluation.json"][
        "data"
    ]
    assert metrics["variants"]["student-quantized"]["metrics"]["test"]["pr_auc"] > 0.5
    project.run("git add dvc.lock && git commit -qam run")
    project.set(quantize={"codebook": {"bits": 4, "dimensions": 2}})
    assert "quantize.codebook.bits" in project.run(readme_command("dvc params diff")).stdout
    project.run("dvc plots show")
    assert (project.root / "dvc_plots/index.html").exists()


def test_changing_quantize_reruns_it_and_what_follows(project: Project) -> None:
    project.run("git checkout -q workloads/mail/params.yaml")
    project.run(readme_command("flows.pipeline --help"))
    done = project.run("python -m flows.pipeline -S quantize.codebook.bits=4")
    assert "ran quantize, evaluate, compression, package, drift, register, bento" in done.stdout
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["quantize"]["codebook"]["bits"] == 4


def test_an_experiment_overrides_a_parameter(project: Project) -> None:
    project.run("git add -A && git commit -qm four-bits")
    project.run("dvc exp run -S workloads/mail/params.yaml:quantize.codebook.bits=8 package@mail")
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["quantize"]["codebook"]["bits"] == 8


def test_the_ui_shows_one_story_a_run(project: Project) -> None:
    client = mlflow.MlflowClient(sqlite_uri(project.root / "mlflow.db"))
    runs = client.search_runs([client.get_experiment_by_name("restill-mail").experiment_id], max_results=100)
    parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert all(child.data.tags["mlflow.parentRunId"] in parents for child in children)
    assert all(run.info.status == "FINISHED" for run in runs)
    first = min(parents.values(), key=lambda run: run.info.start_time)
    stories = {child.info.run_name for child in children if child.data.tags["mlflow.parentRunId"] == first.info.run_id}
    assert stories == {"baseline", "train", "export", "distill", "prune", "quantize", "evaluate", "compression"}
    assert first.data.tags["restill.release"] in first.data.tags["mlflow.note.content"]
    changed = [
        run
        for run in parents.values()
        if "restill.stage.quantize" in run.data.tags and "restill.stage.train" not in run.data.tags
    ]
    told = [run.data.tags["mlflow.note.content"] for run in changed if "mlflow.note.content" in run.data.tags]
    assert told, "the run that changed quantize tells of its release"
    assert all("- train: `" in note for note in told), "a stage that was skipped is told of all the same"
    assert {item.path for item in client.list_artifacts(first.info.run_id)} >= {"evaluation.html", "compression.html", "plots"}
    port = free_port()
    with running(project, readme_command("make ui"), port, "/health"):
        body = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
    assert b"MLflow" in body


BLOCKER = """import sys
ABSENT = "torch transformers prefect mlflow dvc sklearn evidently great_expectations pandas".split()
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ImportError(name + " is not in a Bento")
sys.meta_path.insert(0, Blocker())
"""
"""Stands for a machine that has the Bento's requirements and nothing of the floors above."""


def test_make_serve_answers_what_readme_asks(project: Project) -> None:
    project.run("make run")  # the experiment left the release of another parameter
    port = free_port()
    (project.root / "blocked").mkdir()
    (project.root / "blocked/sitecustomize.py").write_text(BLOCKER)
    with running(project, f"PYTHONPATH=blocked {readme_command('make serve')}", port, "/readyz"):
        asked = [command for command in readme_commands() if "curl" in command]
        assert len(asked) >= 4
        EXECUTED.update(asked)
        answers = [json.loads(project.run(command.replace("3000", str(port))).stdout) for command in asked]
        release = project.run("python -m service.release workloads/mail/release").stdout.strip()
        for answer in answers:
            for entry in answer if isinstance(answer, list) else [answer]:
                assert entry["release"] == release
        bad = project.run(
            f"curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/classify -d '{{' "
            "-H 'Content-Type: application/json'"
        )
        assert bad.stdout == "400"
        assert project.run(f"curl -s http://127.0.0.1:{port}/livez -o /dev/null -w '%{{http_code}}'").stdout == "200"
    log = (project.root / "server.log").read_text()
    assert "Traceback" not in log


def test_a_killed_training_goes_on_to_the_same_student(project: Project) -> None:
    project.set(train={"seed": 11, "evaluate_every": 0.25})
    project.run("dvc repro distill@mail")
    unbroken = {
        name: hash_of(project.folder / name) for name in ("models/teacher/model.safetensors", "models/student/model.onnx")
    }
    for name in ("models/teacher", "models/student"):
        shutil.rmtree(project.folder / name)
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", "train@mail"], cwd=project.root, env=project.environment,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((project.folder / ".checkpoints").glob("*.pt")):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.folder / "models/teacher").exists(), "no half model stands there"
    again = project.run("dvc repro --force --single-item train@mail && dvc repro --force --single-item distill@mail")
    assert "goes on from batch" in again.stdout
    assert {name: hash_of(project.folder / name) for name in unbroken} == unbroken


def test_a_bad_source_stops_the_pipeline_with_one_line_and_the_outputs_stay(project: Project) -> None:
    before = hash_of(project.folder / "data/corpus.parquet")
    (project.folder / "bad.csv").write_text("label,body\nham,hello\n")
    project.set(ingest={"source": "table", "path": "bad.csv"})
    done = project.run("make run", check=False)
    assert done.returncode != 0
    assert "ingest.columns.text = 'text': bad.csv has no such column; it has label, body" in done.stderr
    assert hash_of(project.folder / "data/corpus.parquet") == before


def test_every_command_of_readme_was_executed_here() -> None:
    assert set(readme_commands()) == EXECUTED
