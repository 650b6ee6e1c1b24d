"""Logs a lasting problem once per episode, not once per affected request."""

from __future__ import annotations

import logging
import threading


def reason_of(error: OSError) -> str:
    """The path and the system's message."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else f"{type(error).__name__}: {error}"


class EpisodeLog:
    """Logs when one kind of problem begins, changes its reason, and ends. Thread-safe."""

    def __init__(self, log: logging.Logger, problem: str) -> None:
        """``problem``: the log message."""
        self._log, self._problem = log, problem
        self._lock = threading.Lock()
        self._reason: str | None = None

    def report(self, reason: str) -> None:
        """Log the reason, unless it was the last one logged."""
        with self._lock:
            previous, self._reason = self._reason, reason
        if reason != previous:
            self._log.error("%s: %s", self._problem, reason)

    def resolve(self) -> None:
        """Log the end of the episode, if there was one."""
        if self._reason is None:
            return
        with self._lock:
            previous, self._reason = self._reason, None
        if previous is not None:
            self._log.warning("%s: this is over", self._problem)
