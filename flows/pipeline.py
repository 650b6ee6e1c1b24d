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
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from prefect import Task, flow
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, Failed
from rich.console import Console
from rich.table import Column, Table

from flows.command import get_ready, run_command
from flows.console import StageConsole
from flows.effects import CACHED, build_bento, publish, register_release
from flows.fault import dvc_fault
from flows.file_lock import free_rwlock, graph_lock, run_lock
from flows.graph import Node, read_graph
from flows.pace import Pace
from tasks.data.dvcignore import check_folder
from tasks.files import read_json
from tasks.release.bento import tag_of
from tasks.release.table import evaluation_rows
from tasks.stage import Paths, StageError, add_option, find_workload, project_folder, workloads
from tasks.tracking import INVOCATION_VARIABLE

EVERY = "all"
"""In place of a workload's name: each in turn."""
SKIPPED = "Skipped"
"""How a flow that another one keeps away is called in Prefect."""


def run_stage(
    node: Node, paths: Paths, force: bool, invocation: str, place: tuple[int, int] = (1, 1), left: str = ""
) -> State[Any]:
    """Reproduce one stage with DVC. Completed, Cached, or Failed with the stage's own last lines.

    ``place`` is its number, and of how many; ``left`` says what the run has still to do.
    """
    process = _start(node, paths.project, force, invocation)
    late = Event()
    timer = Timer(node.timeout or threading.TIMEOUT_MAX, lambda: late.set() or _stop(process))  # type: ignore[func-returns-value]
    timer.daemon = True
    timer.start()
    attempt = task_run.run_count or 1
    console = StageConsole(*place, node.name, attempt, left=left)
    try:
        assert isinstance(process.stdout, io.BufferedReader)
        while chunk := process.stdout.read1():
            console.feed(chunk)
        code = process.wait()
    finally:
        timer.cancel()
        said = console.end()
        if process.poll() is None:  # the flow itself is being stopped
            _stop(process)
    if late.is_set():
        less = f", or change {node.shorter} in params.yaml" if node.shorter else ""
        message = f"{node.name} took longer than {node.timeout} s: raise its meta.timeout in dvc.yaml{less}"
        console.close("stopped")
        return Failed(message=message)
    if code:
        how = _how(console.exited if code > 0 else code)
        console.close(how, hold=attempt > node.retries)
        return Failed(message="\n".join([f"{node.name} {how}" + (":" if console.last else ""), *console.last]))
    console.close("up to date" if console.unchanged else "")
    return Completed(name=CACHED, message="nothing changed") if console.unchanged else Completed(message=said)


def _how(code: int | None) -> str:
    """How a stage failed: with its own exit code, by a signal, or, where DVC did not get so far (None), as DVC says."""
    if code is None:
        return "failed"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


def _start(node: Node, project: Path, force: bool, invocation: str) -> subprocess.Popen[bytes]:
    """DVC at work on one stage, in a session of its own, so that all it starts can be ended with it."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *(["--force"] if force else []), node.address]
    here = Path(sys.executable).parent  # a stage's `python` is looked up on PATH: it must be the one that runs us
    environment = os.environ | {
        INVOCATION_VARIABLE: invocation,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONIOENCODING": "utf-8:replace",  # to us; we tell the terminal in its own charset
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
        "COLUMNS": str(shutil.get_terminal_size().columns - 3),  # the width of a progress bar
    }
    with _interruptible():
        return subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )


@contextmanager
def _interruptible() -> Iterator[None]:
    """What is started here takes SIGINT, by which DVC lets go of its locks, also where a script told us to ignore it."""
    ignored = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


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


@flow(name="pipeline", log_prints=False)
def pipeline(folder: Path | None = None, force: bool = False) -> State[Any]:
    """Run every stage of dvc.yaml in order, then register the release and build its Bento."""
    paths = Paths(folder.resolve()) if folder else find_workload()
    with run_lock(paths, "pipeline") as free:
        if not free:  # DVC's own lock would let it fail in the middle
            return Completed(name=SKIPPED, message="another pipeline is at work")
        try:
            check_folder(paths)
            with graph_lock(paths.project):
                free_rwlock(paths.project)
                ran = run_stages(paths, force, str(flow_run.id))
            ran += run_effects(paths, str(flow_run.id))
        except StageError as error:
            return Failed(message=str(error))
        publish(paths)
        return Completed(message=f"ran {', '.join(ran)}" if ran else "nothing to do: every stage is up to date")


def run_stages(paths: Paths, force: bool, invocation: str) -> list[str]:
    """Every stage of dvc.yaml in order, each a task; the names of those that ran. Raises StageError where one fails."""
    ran = []
    nodes = read_graph(paths)
    pace = Pace(nodes)
    for number, node in enumerate(nodes, 1):
        stage: Task[..., State[Any]] = Task(
            run_stage, name=node.name, description=node.desc, retries=node.retries, retry_delay_seconds=5, cache_policy=NO_CACHE
        )
        begin = time.monotonic()
        state = stage(node, paths, force, invocation, (number, len(nodes)), pace.left(), return_state=True)
        if _has_run(node.name, state):
            ran.append(node.name)
            pace.ran(node.name, time.monotonic() - begin)
        else:
            pace.skipped(node.name)
    return ran


def run_effects(paths: Paths, invocation: str) -> list[str]:
    """What follows the stages; the names of those that did something. Raises StageError where one fails."""
    ran = []
    for effect in (register_release, build_bento):
        state = effect(paths, invocation, return_state=True)
        if _has_run(effect.name, state):
            ran.append(effect.name)
        print(f"{effect.name}: {state.message}", file=sys.stderr, flush=True)
    return ran


def _has_run(name: str, state: State[Any]) -> bool:
    """Whether the task ``name`` had something to do. Raises StageError where it did not end well."""
    if not state.is_completed():  # crashed and cancelled too
        raise StageError(state.message or f"{name} did not finish")
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
    console.print(
        f"Bento {tag_of(paths)} is built; {paths.report('evaluation.html')} has every figure.",
        highlight=False,
    )


def _said(state: State[Any]) -> str:
    """How the run ended; of a stage that failed the last line is left to say, the others stand above."""
    first, *lines = str(state.message).splitlines()
    if not (first.endswith(":") and lines):
        return first
    name = first.split()[0]
    for repeated in (f"ERROR: failed to reproduce '{name}': ", f"{name}: "):
        lines[-1] = lines[-1].removeprefix(repeated)
    return f"{first} {lines[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=pipeline.__doc__)
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="STAGE.NAME=VALUE",
        help="write this value to params.yaml first, as dvc exp run -S does; may be given several times",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    add_option(parser)
    given = parser.parse_args()
    get_ready()
    every = [find_workload(name) for name in (workloads(project_folder()) if given.workload == EVERY else [given.workload])]
    try:
        for paths in every:  # before a server is started: a broken file is one clear line
            if given.set:
                apply_overrides(str(paths.root / "params.yaml"), given.set)
            read_graph(paths)
    except DvcException as error:
        sys.exit(f"pipeline: {dvc_fault(error)}")
    for paths in every:
        state = pipeline(paths.root, given.force, return_state=True)
        if not state.is_completed() or state.name == SKIPPED:
            sys.exit(f"pipeline: {_said(state)}")
        show(paths)
        print(state.message)


if __name__ == "__main__":
    run_command("pipeline", main)
