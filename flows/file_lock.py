"""One at a time: a flow holds a lock on the runtime state while it works, and the lock dies with its process.

Prefect's own concurrency limits keep the place of a run that was killed; a lock of the operating system cannot.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tasks.stage import Paths
from tasks.tracking import INVOCATION_VARIABLE, alive, is_dvc, process_name

OWNER = "RESTILL_OWNER"
"""The variable by which what a flow starts (stages, Prefect's temporary server) knows the flow's process."""


@contextmanager
def run_lock(paths: Paths, flow: str) -> Iterator[bool]:
    """Whether no other run of ``flow`` is at work on this runtime state; the lock file holds the process id of the one."""
    paths.monitor.mkdir(parents=True, exist_ok=True)
    with (paths.monitor / f"{flow}.lock").open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.truncate(lock.fileno(), 0)
        lock.write(str(os.getpid()))
        lock.flush()
        own()
        yield True


@contextmanager
def graph_lock(project: Path) -> Iterator[None]:
    """Wait until no pipeline of another workload is at work in the project: DVC changes its graph for one at a time."""
    folder = project / ".dvc/tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "restill.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def own() -> int:
    """Mark what this process starts from now on as its own, and end what dead flows left at work; how much that was."""
    os.environ[OWNER] = process_name()
    return _end(lambda process: not alive(process.environ()[OWNER]))


def end_owned() -> int:
    """End what this process has started, also what left its process group or lost its parent; how much that was."""
    name = process_name()
    return _end(lambda process: process.environ()[OWNER] == name)


def end_orphans(folder: Path) -> int:
    """End what still works in ``folder`` for a run that was killed, then take its locks away; how many there were.

    To be called by the one who is ``run_lock``: what a flow started in its folder is then at work for nobody. It is known by
    the variable that names its run, so whoever looks around there, with a shell of his own, is left alone.
    """
    place = folder.resolve()  # as the system tells where a process works
    ended = _end(lambda process: Path(process.cwd()).is_relative_to(place) and INVOCATION_VARIABLE in process.environ())
    for name in ("lock", "rwlock", "rwlock.lock"):
        (folder / ".dvc/tmp" / name).unlink(missing_ok=True)
    return ended


def free_rwlock(folder: Path) -> None:
    """Take DVC's list of readers and writers away where a kill left it half written, or naming nobody who is at work.

    DVC frees what dead processes hold by itself, unless their number was given to another process since.
    """
    path = folder / ".dvc/tmp/rwlock"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        holders = [*(entry for entries in held["read"].values() for entry in entries), *held["write"].values()]
        if any(is_dvc(psutil.Process(int(holder["pid"]))) for holder in holders if psutil.pid_exists(int(holder["pid"]))):
            return
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, psutil.Error):  # half written, or its holder is gone just now
        pass
    path.unlink(missing_ok=True)


def _end(ours: Callable[[psutil.Process], bool]) -> int:
    """kill -9 to every other process of which ``ours`` is true, and wait until they are gone; how many there were."""
    found = [process for process in psutil.process_iter() if process.pid != os.getpid() and _is(ours, process)]
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=10)
    return len(found)


def _is(ours: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return ours(process)
    except (psutil.Error, OSError, KeyError, ValueError):  # of another user, gone, or without the variable
        return False
