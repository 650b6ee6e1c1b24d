"""How the command of a flow begins and ends: surroundings it can work in, and no process of it left behind.

SIGTERM, SIGHUP and SIGINT end the stage at work, and what is left of the flow's processes; the exit code is 128 and the
signal's number. A kill -9 leaves them: they carry a variable that names their owner, and the next flow ends them.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from flows.file_lock import end_owned, own
from tasks.stage import Paths, StageError, project_folder

ENDED = ("Finished in state", "Task run failed with state", "Execution was aborted by")
"""What Prefect says of a run whose end we tell."""


def run_command(name: str, main: Callable[[], None]) -> None:
    """Run ``main`` as the command ``python -m flows.NAME``. What the user can mend is one line and exit code 1."""
    stopped = _Stop()
    atexit.register(end_owned)  # it is the last to run: Prefect's temporary server is stopped before, and has had its log
    try:
        main()
    except StageError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        stopped.number = signal.SIGINT
    except SystemExit:
        if stopped.number is None:
            raise
    if stopped.number is not None:
        print(f"{name}: stopped by {signal.Signals(stopped.number).name}; the next run goes on from there", file=sys.stderr)
        sys.exit(128 + stopped.number)


class _Stop:
    """SIGTERM and SIGHUP end the process as an exception does, so that whoever holds something lets go of it.

    What the caller ignores (nohup, a job in the background of a script) stays ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.ending = False
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number
        if number != signal.SIGTERM:  # in a flow, Prefect's own handler of SIGTERM comes first: the run is not left "running"
            os.kill(os.getpid(), signal.SIGTERM)
        elif not self.ending:  # a second one must not disturb what the first has begun
            self.ending = True
            raise SystemExit(128 + self.number)


def get_ready(api: bool = True) -> None:
    """What a command does once it knows what it was asked. ``api``: it talks to the server of PREFECT_API_URL, if one is set.

    Raises StageError where it could not work here.
    """
    check_surroundings(api)
    own()
    hush()


def check_surroundings(api: bool) -> None:
    """Raises StageError where a flow could not work here: a folder that cannot be written, a Prefect that is not there."""
    paths = Paths(project_folder())
    for folder, mend in (
        (paths.root, "a run writes data, models and reports into the project's folder"),
        (paths.home, "set RESTILL_HOME to a folder of your own"),
        (PREFECT_HOME.value(), "set PREFECT_HOME to a folder of your own"),
    ):
        check_writable(folder, mend)
    address = PREFECT_API_URL.value()
    if api and address:
        try:
            with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):  # noqa: S310  (the user's own server)
                return
        except urllib.error.HTTPError:  # one is there; what it refuses, it will say
            return
        except (OSError, ValueError) as error:
            mend = "start it, or unset PREFECT_API_URL: then a temporary one is used"
            raise StageError(f"PREFECT_API_URL = {address}: no Prefect server answers there ({error}): {mend}") from error


def check_writable(folder: Path, mend: str) -> None:
    """Raises StageError where ``folder`` is not there and cannot be made, or cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(f"{folder}: cannot be made ({error.strerror}): {mend}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StageError(f"{folder}: cannot be written: {mend}")


def hush() -> None:
    """Of Prefect's own log the console has what a user must know; its server has all of it."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    setup_logging()  # now: the first flow finds it done, and the handlers stay
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_matters)


def _matters(record: logging.LogRecord) -> bool:
    # How a run ended is the last line of the command; a stage tells of itself (flows/console.py).
    return record.levelno >= logging.WARNING and not any(words in record.getMessage() for words in ENDED)
