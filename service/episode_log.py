"""What stands in the way of an answer is told in the log: once an episode, and not with every request that meets it."""

from __future__ import annotations

import logging
import threading


def reason_of(error: OSError) -> str:
    """The path and what the system says of it."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else f"{type(error).__name__}: {error}"


class EpisodeLog:
    """Trouble with one thing, from the first reason to the end. Use from any thread."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        """``what`` is what cannot be done, as the log says it."""
        self._log, self._what = log, what
        self._lock = threading.Lock()
        self._reason: str | None = None

    def tell(self, reason: str) -> None:
        """One line, unless this very reason was the last one told."""
        with self._lock:
            known, self._reason = self._reason, reason
        if reason != known:
            self._log.error("%s: %s", self._what, reason)

    def over(self) -> None:
        """It works. One line where it did not before."""
        if self._reason is None:
            return
        with self._lock:
            known, self._reason = self._reason, None
        if known is not None:
            self._log.warning("%s: this is over", self._what)
