"""One at a time: a flow holds a lock on the runtime state while it works, and the lock dies with its process.

Prefect's own concurrency limits keep the place of a run that was killed; a lock of the operating system cannot.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.stage import Paths


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
