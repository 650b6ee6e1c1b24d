"""A program of ``supervisord.conf``: first end what a dead one of its name has left behind, then become its command.

    python -m flows.process_group mlflow ui ...      what the supervisor starts
    python -m flows.process_group                    after it stopped: end whatever is left of any program

A server's parent process that dies by kill -9 leaves its workers at work: they hold the port, and the next server cannot
bind it. They are known by the two variables that every process below the supervisor inherits.
"""

from __future__ import annotations

import os
import sys

import psutil

PROGRAM, HOME = "RESTILL_PROGRAM", "RESTILL_HOME"
WAIT_SECONDS = 10


def left_behind(home: str, program: str | None) -> list[psutil.Process]:
    """Other processes that were started for ``program``, or for any, on the runtime state in ``home``."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_of(process, home, program)]


def _is_of(process: psutil.Process, home: str, program: str | None) -> bool:
    try:
        held = process.environ()
    except (psutil.Error, OSError):  # of another user, or gone
        return False
    return PROGRAM in held and held.get(HOME) == home and program in (None, held[PROGRAM])


def end_left_behind(home: str, program: str | None) -> int:
    """kill -9 to all of them, and wait until they are gone; how many there were."""
    left = left_behind(home, program)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=WAIT_SECONDS)
    return len(left)


def main(words: list[str]) -> None:
    for name in (HOME, PROGRAM) if words else (HOME,):
        if not os.environ.get(name):
            sys.exit(f"program: {name} is not set; `make up` and `make down` set it")
    ended = end_left_behind(os.environ[HOME], os.environ[PROGRAM] if words else None)
    if ended:
        print(f"program: ended {ended} processes that a dead one left behind", flush=True)
    if words:
        words = [os.path.expandvars(word) for word in words]
        os.execvp(words[0], words)  # noqa: S606  (a command of supervisord.conf)


if __name__ == "__main__":
    main(sys.argv[1:])
