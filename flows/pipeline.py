"""Flow pipeline: DVC's graph, each stage a Prefect task of its name, then what touches the world.

    python -m flows.pipeline                          what make run does
    python -m flows.pipeline -S quantize.per_channel=true
    python -m flows.pipeline --force                  run every stage, changed or not

It works with no Prefect server (a temporary one is started) and with PREFECT_API_URL set.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Timer
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from rich.console import Console
from rich.table import Column, Table

from flows.alone import alone
from flows.graph import Node, read_graph
from tasks.release.bento import bento, tag_of
from tasks.release.register import register
from tasks.release.table import evaluation_rows
from tasks.stage import Paths, StageError, read_json
from tasks.tracking import INVOCATION_VARIABLE

LAST_LINES = 15
UNCHANGED = ("didn't change, skipping", "is cached - skipping run")
"""What DVC says of a stage that has nothing to do."""
CACHED, SKIPPED = "Cached", "Skipped"
"""How a stage that had nothing to do, and a flow that another one keeps away, are called in Prefect."""


def run_stage(node: Node, root: Path, force: bool, invocation: str) -> State[Any]:
    """Reproduce one stage with DVC. Completed, Cached, or Failed with the stage's own last lines."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), node.name]
    here = Path(sys.executable).parent  # a stage's `python` is looked up on PATH: it must be the one that runs us
    environment = os.environ | {INVOCATION_VARIABLE: invocation, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    late = Event()
    timer = Timer(node.timeout or threading.TIMEOUT_MAX, lambda: late.set() or _stop(process))  # type: ignore[func-returns-value]
    timer.daemon = True
    timer.start()
    last: deque[str] = deque(maxlen=LAST_LINES)
    skipped = False
    try:
        for line in _lines(process):
            skipped |= any(words in line for words in UNCHANGED)
            last.append(line)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:  # the flow itself is being stopped
            _stop(process)
    if late.is_set():
        return Failed(message=f"{node.name} took longer than {node.timeout} s (dvc.yaml: meta.timeout)")
    if code:
        return Failed(message=f"{node.name} failed with exit code {code}:\n" + "\n".join(last))
    return Completed(name=CACHED, message="nothing changed") if skipped else Completed(message=_closing(last))


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The stage's output, shown as it comes; of a progress bar, which rewrites its line, only the end is a line."""
    assert isinstance(process.stdout, io.BufferedReader)
    rest = b""
    while chunk := process.stdout.read1():
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, map(_last_state, lines))
    if rest:
        yield _last_state(rest)


def _last_state(line: bytes) -> str:
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace").rstrip()


def _closing(last: deque[str]) -> str:
    """The stage's own last word, without what DVC says around it."""
    noise = ("Updating lock", "Use `dvc push`", "To track", "git add", "To enable", "dvc config", "Generating lock", "\t")
    own = [line for line in last if not line.startswith(noise)]
    return own[-1] if own else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the stage and all it started; DVC releases its locks when it is interrupted."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return
        return


@task(name="register", retries=2, retry_delay_seconds=2, cache_policy=NO_CACHE)
def register_release(root: Path, invocation: str) -> State[Any]:
    version, new = register(Paths(root), invocation)
    return Completed(message=f"version {version}") if new else Completed(name=CACHED, message=f"version {version}")


@task(name="bento", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def build_bento(root: Path, invocation: str) -> State[Any]:
    tag, new = bento(Paths(root))
    return Completed(message=tag) if new else Completed(name=CACHED, message=tag)


@task(name="publish", cache_policy=NO_CACHE)
def publish(root: Path) -> None:
    """The evaluation as a Prefect artifact, and where the reports lie."""
    paths = Paths(root)
    create_table_artifact(
        evaluation_rows(read_json(paths.report("evaluation.json"))),
        key="evaluation",
        description="Every variant on test and future",
    )
    pages = ("evaluation.html", "compression.html", "drift.html", "data_docs/index.html")
    reports = (*pages, "ingest.json", "validate.json", "prepare.json")
    links = [f"- [{name}]({paths.report(name).resolve().as_uri()})" for name in reports]
    create_markdown_artifact("# Reports\n\n" + "\n".join(links), key="reports")


@flow(name="pipeline", log_prints=False)
def pipeline(root: Path | None = None, force: bool = False) -> State[Any]:
    """Run every stage of dvc.yaml in order, then register the release and build its Bento."""
    root = root or Path.cwd()
    with alone(Paths(root), "pipeline") as free:
        if not free:  # DVC's own lock would let it fail in the middle
            return Completed(name=SKIPPED, message="another pipeline is at work")
        try:
            ran = run_stages(root, force, str(flow_run.id))
            ran += run_effects(root, str(flow_run.id))
        except StageError as error:
            return Failed(message=str(error))
        publish(root)
        return Completed(message=f"ran {', '.join(ran)}" if ran else "nothing to do: every stage is up to date")


def run_stages(root: Path, force: bool, invocation: str) -> list[str]:
    """Every stage of dvc.yaml in order, each a task; the names of those that ran. Raises StageError where one fails."""
    ran = []
    for node in read_graph(root):
        stage: Task[..., State[Any]] = Task(
            run_stage, name=node.name, description=node.desc, retries=node.retries, retry_delay_seconds=5, cache_policy=NO_CACHE
        )
        if _has_run(node.name, stage(node, root, force, invocation, return_state=True)):
            ran.append(node.name)
    return ran


def run_effects(root: Path, invocation: str) -> list[str]:
    """What follows the stages; the names of those that did something. Raises StageError where one fails."""
    return [
        effect.name
        for effect in (register_release, build_bento)
        if _has_run(effect.name, effect(root, invocation, return_state=True))
    ]


def _has_run(name: str, state: State[Any]) -> bool:
    """Whether the task ``name`` had something to do. Raises StageError where it did not end well."""
    if not state.is_completed():  # crashed and cancelled too
        raise StageError(state.message or f"{name} did not finish")
    get_run_logger().info("%s: %s %s", name, state.name, state.message or "")
    return state.name != CACHED


def show(paths: Paths) -> None:
    """Print the evaluation and where to look next."""
    rows = evaluation_rows(read_json(paths.report("evaluation.json")))
    first, *others = rows[0]
    table = Table(Column(first, no_wrap=True), *others, title="Evaluation")
    for row in rows:
        table.add_row(*row.values())
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(f"Bento {tag_of(paths)} is built; reports/evaluation.html has every figure.", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=pipeline.__doc__)
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="STAGE.NAME=VALUE",
        help="write this value to params.yaml first, as dvc exp run -S does; may be given several times",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    given = parser.parse_args()
    root = Path.cwd()
    try:
        if given.set:
            apply_overrides(str(root / "params.yaml"), given.set)
        read_graph(root)  # before a server is started: a broken file is one clear line
    except (StageError, DvcException) as error:
        cause = f" ({str(error.__cause__).splitlines()[0]})" if str(error.__cause__ or "") else ""
        sys.exit(f"pipeline: {error}{cause}")
    state = pipeline(root, given.force, return_state=True)
    if not state.is_completed() or state.name == SKIPPED:
        sys.exit(f"pipeline: {state.message}")
    show(Paths(root))
    print(state.message)


if __name__ == "__main__":
    main()
