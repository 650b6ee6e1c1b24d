"""The journal: records of requests and answers, on the disk within a flush interval, without blocking requests.

``append`` adds a record to a buffer and returns. One thread writes the buffer with one write and one fsync (group commit).
A full or missing disk costs records, never an answer: failed writes are retried in a new segment, and records that exceed
the memory limit are counted as lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.housekeeping import run_housekeeping
from service.segments import Segment, encode, find, new_stem, read, segments, stem_of

__all__ = ["Journal", "JournalLimits", "find", "read", "segments", "stem_of"]

log = logging.getLogger("restill.journal")

HOUSEKEEPING_SECONDS = 3600
"""How often old segments are removed, and those of dead writers closed."""
MAX_SEGMENT_SECONDS = 86_400
"""A segment is closed after a day, even with few records: only closed segments are removed by age."""


@dataclass(frozen=True)
class JournalLimits:
    """Limits and intervals of a journal, with the defaults of the service's configuration."""

    flush_seconds: float = 0.05
    segment_records: int = 10_000
    keep_days: float | None = 30.0
    """None: for ever."""
    capacity: int = 10_000
    """Most records in memory; about a kilobyte each."""
    attempts: int = 30
    """Attempts to write records before they are lost."""
    retry_seconds: float = 1.0


@dataclass
class _PendingRecord:
    """A record that is not on the disk yet; ``stored`` is the result once ``done`` is set."""

    stem: str
    record: dict[str, Any]
    done: threading.Event | None = None
    stored: bool = False


@dataclass
class _Batch:
    """Records of one segment that are not on the disk yet."""

    lines: list[bytes] = field(default_factory=list)
    records: list[_PendingRecord] = field(default_factory=list)
    attempts: int = 0


class Journal:
    """One writer's journal in ``folder``. ``on_loss`` is called with the number of records lost, each time some are.

    No method raises for disk errors. Thread-safe; not fork-safe.
    """

    def __init__(self, folder: Path, limits: JournalLimits | None = None, on_loss: Callable[[int], None] | None = None) -> None:
        self.folder = folder
        self.limits = limits or JournalLimits()
        self.lost = 0
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._buffer: list[_PendingRecord] = []
        self._in_memory = 0
        self._current_stem, self._next_n, self._segment_started = new_stem(), 0, time.monotonic()
        # Only the writing thread uses the following.
        self._pending: dict[str, _Batch] = {}
        self._open_segments: dict[str, Segment] = {}
        self._failure: str | None = None
        self._lost_before = 0
        self._retry_at = self._housekeeping_at = 0.0
        self._wake_event, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=f"journal-{folder.name}", daemon=True)
        self._thread.start()

    def append(self, record: dict[str, Any]) -> str:
        """Number a record and pass it to the writing thread. Returns its id; an answer record also gets it as ``id``."""
        return self._add(record, None)

    def store(self, record: dict[str, Any], timeout: float = 10.0) -> bool:
        """Append a record and wait until it is on the disk; False if it was lost or not written in time."""
        done = threading.Event()
        added: list[_PendingRecord] = []
        self._add(record, done, added)
        self._wake_event.set()
        return bool(added) and done.wait(timeout) and added[0].stored

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all records in memory are written or lost; False on timeout."""
        deadline = time.monotonic() + timeout
        while self._in_memory:
            self._wake_event.set()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Write the records in memory, close the segment, end the thread."""
        self._closing = True
        self._wake_event.set()
        self._thread.join(timeout)

    def _add(self, record: dict[str, Any], done: threading.Event | None, added: list[_PendingRecord] | None = None) -> str:
        with self._lock:
            if self._next_n >= self.limits.segment_records or time.monotonic() - self._segment_started > MAX_SEGMENT_SECONDS:
                self._start_segment()
            stem, n = self._current_stem, self._next_n
            self._next_n += 1
            is_full = self._in_memory >= self.limits.capacity or self._closing
            answer_id = f"{stem}-{n}"
            if not is_full:
                numbered_record = {**record, "n": n, **({"id": answer_id} if record["kind"] == "answer" else {})}
                pending = _PendingRecord(stem, numbered_record, done)
                self._buffer.append(pending)
                self._in_memory += 1
                if added is not None:
                    added.append(pending)
        if is_full:
            self._count_lost(1)
        return answer_id

    def _start_segment(self) -> None:
        self._current_stem, self._next_n, self._segment_started = new_stem(), 0, time.monotonic()

    def _count_lost(self, records: int) -> None:
        with self._lock:
            self.lost += records
        if self._on_loss is not None:
            self._on_loss(records)

    # --- the writing thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake_event.wait(self.limits.flush_seconds)
            self._wake_event.clear()
            closing = self._closing
            try:
                self._housekeep()
                self._encode_buffered()
                self._write(last=closing)
            except Exception as error:  # a bug must cost records, not the writing thread
                self._drop_all()
                self._report(f"{type(error).__name__}: {error}")
            if closing:
                self._close_segments(lambda stem: True)
                return

    def _encode_buffered(self) -> None:
        with self._lock:
            records, self._buffer = self._buffer, []
        for pending in records:
            try:
                line = encode(pending.record)
            except (TypeError, ValueError) as error:
                self._finish([pending], stored=False)
                self._report(f"a record cannot be written as JSON: {error}")
                continue
            batch = self._pending.setdefault(pending.stem, _Batch())
            batch.lines.append(line)
            batch.records.append(pending)

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
                self._record_failure(stem, last)
        if failed:
            self._retry_at = time.monotonic() + self.limits.retry_seconds
        elif self._failure is not None and not self._pending:
            log.warning("journal %s: written again; %d records were lost", self.folder.name, self.lost - self._lost_before)
            self._failure, self._retry_at, self._lost_before = None, 0.0, self.lost
        self._close_finished()

    def _write_batch(self, stem: str) -> None:
        if stem in self._open_segments and not self._open_segments[stem].is_current:
            self._close_segments(lambda other: other == stem)
        if stem not in self._open_segments:
            self._open_segments[stem] = Segment(self.folder, stem)
        self._open_segments[stem].append(b"".join(self._pending[stem].lines))
        self._finish(self._pending.pop(stem).records, stored=True)

    def _record_failure(self, stem: str, last: bool) -> None:
        """Count the attempt, and leave the segment, so that later records do not depend on a broken one."""
        batch, segment = self._pending[stem], self._open_segments.get(stem)
        batch.attempts += 1
        if batch.attempts >= self.limits.attempts or last:
            self._finish(self._pending.pop(stem).records, stored=False)
        if segment is None:
            return
        if segment.is_empty or not segment.is_current:
            self._close_segments(lambda other: other == stem)
        with self._lock:
            if self._current_stem == stem and not segment.is_empty:
                self._start_segment()

    def _finish(self, pending_records: list[_PendingRecord], stored: bool) -> None:
        if not stored:
            self._count_lost(len(pending_records))
        with self._lock:
            self._in_memory -= len(pending_records)
        for pending in pending_records:
            pending.stored = stored
            if pending.done is not None:
                pending.done.set()

    def _drop_all(self) -> None:
        for stem in list(self._pending):
            self._finish(self._pending.pop(stem).records, stored=False)

    def _close_finished(self) -> None:
        """Close the segments that get no more records: all except the current one and those of pending or buffered records."""
        with self._lock:
            needed = {self._current_stem, *self._pending, *(item.stem for item in self._buffer)}
        self._close_segments(lambda stem: stem not in needed)

    def _close_segments(self, selects: Callable[[str], bool]) -> None:
        for stem in [stem for stem in self._open_segments if selects(stem)]:
            try:
                self._open_segments.pop(stem).close()
            except OSError as error:
                self._report(f"{stem} cannot be closed: {error.strerror}")

    def _housekeep(self) -> None:
        if time.monotonic() < self._housekeeping_at:
            return
        self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
        run_housekeeping(self.folder, self.limits.keep_days)

    def _report(self, reason: str) -> None:
        """Log one line per episode, not per record."""
        if self._failure is None:
            log.error("journal %s: %s; records wait in memory, and are lost where it is full", self.folder.name, reason)
            self._lost_before = self.lost
        self._failure = reason
