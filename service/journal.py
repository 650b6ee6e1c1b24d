"""The journal: what was asked and answered, on the disk within a flush interval, and never in the way of an answer.

``append`` puts a record into memory and returns. One thread writes what came together with one write and one fsync
(group commit). A disk that is full or gone costs records, never an answer: what waits is tried again, in a segment
of its own, and what does not fit into memory any more is counted as lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.housekeeping import keep_house
from service.segments import Segment, encode, find, new_stem, read, segments, stem_of

__all__ = ["Journal", "JournalLimits", "find", "read", "segments", "stem_of"]

log = logging.getLogger("restill.journal")

HOUSEKEEPING_SECONDS = 3600
"""How often old segments are removed and those of dead writers closed."""
LONGEST_SEGMENT_SECONDS = 86_400
"""A segment is closed after a day, however few records it has: only a closed one can be removed by its age."""


@dataclass(frozen=True)
class JournalLimits:
    """How a journal writes; the defaults are those of the service's configuration."""

    flush_seconds: float = 0.05
    segment_records: int = 10_000
    keep_days: float | None = 30.0
    """None: for ever."""
    capacity: int = 10_000
    """Records that may wait in memory; about a kilobyte each."""
    attempts: int = 30
    """How often records are tried before they are given up."""
    retry_seconds: float = 1.0


@dataclass
class _Waiting:
    """A record on its way to the disk; ``stored`` tells a caller who waits how it ended."""

    stem: str
    record: dict[str, Any]
    done: threading.Event | None = None
    stored: bool = False


@dataclass
class _Batch:
    """Records of one segment that are not on the disk yet."""

    lines: list[bytes] = field(default_factory=list)
    waiting: list[_Waiting] = field(default_factory=list)
    attempts: int = 0


class Journal:
    """One writer's journal in ``folder``. ``on_loss`` is told how many records were lost, each time some are.

    No method raises for what a disk does. Use from any thread; not across a fork.
    """

    def __init__(self, folder: Path, limits: JournalLimits | None = None, on_loss: Callable[[int], None] | None = None) -> None:
        self.folder = folder
        self.limits = limits or JournalLimits()
        self.lost = 0
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._buffer: list[_Waiting] = []
        self._in_memory = 0
        self._stem, self._n, self._begun = new_stem(), 0, time.monotonic()
        # What follows belongs to the writing thread alone.
        self._pending: dict[str, _Batch] = {}
        self._open: dict[str, Segment] = {}
        self._trouble: str | None = None
        self._reported = 0
        self._retry_at = self._housekeeping_at = 0.0
        self._wake, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=f"journal-{folder.name}", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any]) -> str:
        """Number a record and hand it to the writing thread. Returns its id; an answer's record also gets it as ``id``."""
        return self._enter(record, None)

    def store(self, record: dict[str, Any], timeout: float = 10.0) -> bool:
        """Append a record and wait until it is on the disk; False where it is not, or not in time."""
        done = threading.Event()
        waiting: list[_Waiting] = []
        self._enter(record, done, waiting)
        self._wake.set()
        return bool(waiting) and done.wait(timeout) and waiting[0].stored

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until nothing is in memory any more: written, or lost. False where that takes longer."""
        deadline = time.monotonic() + timeout
        while self._in_memory:
            self._wake.set()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Write what is in memory, close the segment, end the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)

    def _enter(self, record: dict[str, Any], done: threading.Event | None, entered: list[_Waiting] | None = None) -> str:
        with self._lock:
            if self._n >= self.limits.segment_records or time.monotonic() - self._begun > LONGEST_SEGMENT_SECONDS:
                self._turn()
            stem, n = self._stem, self._n
            self._n += 1
            full = self._in_memory >= self.limits.capacity or self._closing
            identity = f"{stem}-{n}"
            if not full:
                numbered = {**record, "n": n, **({"id": identity} if record["kind"] == "answer" else {})}
                item = _Waiting(stem, numbered, done)
                self._buffer.append(item)
                self._in_memory += 1
                if entered is not None:
                    entered.append(item)
        if full:
            self._lose(1)
        return identity

    def _turn(self) -> None:
        self._stem, self._n, self._begun = new_stem(), 0, time.monotonic()

    def _lose(self, records: int) -> None:
        with self._lock:
            self.lost += records
        if self._on_loss is not None:
            self._on_loss(records)

    # --- the writing thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait(self.limits.flush_seconds)
            self._wake.clear()
            closing = self._closing
            try:
                self._keep_house()
                self._take()
                self._write(last=closing)
            except Exception as error:  # a mistake of ours must cost records and not the thread that writes them
                self._give_up_all()
                self._report(f"{type(error).__name__}: {error}")
            if closing:
                self._close_segments(lambda stem: True)
                return

    def _take(self) -> None:
        with self._lock:
            taken, self._buffer = self._buffer, []
        for item in taken:
            try:
                line = encode(item.record)
            except (TypeError, ValueError) as error:
                self._settle([item], stored=False)
                self._report(f"a record cannot be written as JSON: {error}")
                continue
            batch = self._pending.setdefault(item.stem, _Batch())
            batch.lines.append(line)
            batch.waiting.append(item)

    def _write(self, last: bool) -> None:
        if time.monotonic() < self._retry_at and not last:
            return
        failed = False
        for stem in list(self._pending):
            try:
                self._write_batch(stem)
            except OSError as error:
                failed = True
                self._report(error.strerror or str(error))
                self._fail(stem, last)
        if failed:
            self._retry_at = time.monotonic() + self.limits.retry_seconds
        elif self._trouble is not None and not self._pending:
            log.warning("journal %s: written again; %d records were lost", self.folder.name, self.lost - self._reported)
            self._trouble, self._retry_at, self._reported = None, 0.0, self.lost
        self._close_finished()

    def _write_batch(self, stem: str) -> None:
        if stem in self._open and not self._open[stem].is_there:
            self._close_segments(lambda other: other == stem)
        if stem not in self._open:
            self._open[stem] = Segment(self.folder, stem)
        self._open[stem].append(b"".join(self._pending[stem].lines))
        self._settle(self._pending.pop(stem).waiting, stored=True)

    def _fail(self, stem: str, last: bool) -> None:
        """Count the attempt; let go of the segment, so that the next records do not depend on a broken one."""
        batch, segment = self._pending[stem], self._open.get(stem)
        batch.attempts += 1
        if batch.attempts >= self.limits.attempts or last:
            self._settle(self._pending.pop(stem).waiting, stored=False)
        if segment is None:
            return
        if segment.is_empty or not segment.is_there:
            self._close_segments(lambda other: other == stem)
        with self._lock:
            if self._stem == stem and not segment.is_empty:
                self._turn()

    def _settle(self, items: list[_Waiting], stored: bool) -> None:
        if not stored:
            self._lose(len(items))
        with self._lock:
            self._in_memory -= len(items)
        for item in items:
            item.stored = stored
            if item.done is not None:
                item.done.set()

    def _give_up_all(self) -> None:
        for stem in list(self._pending):
            self._settle(self._pending.pop(stem).waiting, stored=False)

    def _close_finished(self) -> None:
        """Close every segment that gets no record any more: not the current one, none that waits, none that came meanwhile."""
        with self._lock:
            needed = {self._stem, *self._pending, *(item.stem for item in self._buffer)}
        self._close_segments(lambda stem: stem not in needed)

    def _close_segments(self, which: Callable[[str], bool]) -> None:
        for stem in [stem for stem in self._open if which(stem)]:
            try:
                self._open.pop(stem).close()
            except OSError as error:
                self._report(f"{stem} cannot be closed: {error.strerror}")

    def _keep_house(self) -> None:
        if time.monotonic() < self._housekeeping_at:
            return
        self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
        keep_house(self.folder, self.limits.keep_days)

    def _report(self, reason: str) -> None:
        """One line an episode, not one a record."""
        if self._trouble is None:
            log.error("journal %s: %s; records wait in memory, and are lost where it is full", self.folder.name, reason)
            self._reported = self.lost
        self._trouble = reason
