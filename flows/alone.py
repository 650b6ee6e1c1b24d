"""One at a time: a flow holds a lock on the runtime state while it works, and the lock dies with its process.

Prefect's own concurrency limits keep the place of a run that was killed; a lock of the operating system cannot.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tasks.stage import Paths
from tasks.tracking import INVOCATION_VARIABLE


@contextmanager
def alone(paths: Paths, flow: str) -> Iterator[bool]:
    """Whether no other run of ``flow`` is at work on this runtime state; the lock file holds the process id of the one."""
    paths.monitor.mkdir(parents=True, exist_ok=True)
    with (paths.monitor / f"{flow}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.truncate(lock.fileno(), 0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield True


def end_orphans(folder: Path) -> int:
    """End what still works in ``folder`` for a run that was killed, then take its locks away; how many there were.

    To be called by the one who is ``alone``: what a flow started in its folder is then at work for nobody. It is known by
    the variable that names its run, so whoever looks around there, with a shell of his own, is left alone.
    """
    place = folder.resolve()  # as the system tells where a process works
    orphans = [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_flow_s(process, place)]
    for process in orphans:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(orphans, timeout=10)
    for name in ("lock", "rwlock", "rwlock.lock"):
        (folder / ".dvc/tmp" / name).unlink(missing_ok=True)
    return len(orphans)


def _is_flow_s(process: psutil.Process, place: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(place) and INVOCATION_VARIABLE in process.environ()
    except (psutil.Error, OSError):  # of another user, or gone
        return False
