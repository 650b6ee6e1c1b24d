"""Boundaries of traffic windows, planned from records without a clock or a database.

A window is a range of record numbers per segment. It closes at ``count`` answers, but not within ``least_seconds`` of its
first: with dense traffic it holds all answers of that time, and grows with them. It also closes ``seconds`` after its first
answer or failure, where it holds at least ``minimum`` requests; or where the release changes, because all answers of one
window are of one release. Status records go with the answers around them. Feedback goes to the first window that closes
after it came: labels arrive late, and concern the release that answered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import Field, model_validator

from tasks.monitor.records import Ranges, Record
from tasks.stage import Settings


class TrafficWindows(Settings):
    count: int = Field(ge=1)
    """Answers that fill a window, and the sample size for a window that holds more."""
    least_seconds: float = Field(ge=0)
    """Minimum duration of a window, however many answers come in that time."""
    seconds: float = Field(gt=0)
    """Time after its first answer or failure at which a window closes, if it holds the minimum."""
    minimum: int = Field(ge=1)
    """Requests below which time alone does not close a window: it would only measure noise."""

    @model_validator(mode="after")
    def _least_is_less(self) -> TrafficWindows:
        if self.least_seconds > self.seconds:
            raise ValueError(f"least_seconds = {self.least_seconds:g} is more than seconds = {self.seconds:g}")
        return self


@dataclass(frozen=True)
class Plan:
    """A window ready to be cut."""

    release: str
    rows: int
    """Answers."""
    journal: Ranges
    feedback: Ranges
    labels: int
    """Feedback records."""
    lost: int
    """Records missing from the ranges: broken lines, and segments deleted before they were read to the end."""


@dataclass
class _Queue:
    """The records of a segment, and the number of them already in windows."""

    records: list[Record]
    used: int = 0

    def first_answer(self) -> Record | None:
        remaining = (self.records[index] for index in range(self.used, len(self.records)))
        return next((record for record in remaining if record["kind"] == "answer"), None)

    def count_until(self, time: str) -> int:
        """Number of the next records that came no later than ``time``."""
        stop = self.used
        while stop < len(self.records) and self.records[stop]["time"] <= time:
            stop += 1
        return stop - self.used


Queues = dict[str, _Queue]


@dataclass
class _OpenWindow:
    """A window being filled."""

    release: str
    min_duration: timedelta
    answers: int = 0
    failed: int = 0
    first: str = ""
    """Time of its first answer or failure: a status record without failures does not open a window."""
    full_from: str = ""
    """Time from which the number of answers can close it."""
    last: str = ""
    """Time of its last record."""
    counts: dict[str, int] = field(default_factory=dict)
    """Segment -> number of its unread records in the window."""

    def add(self, segment: str, record: Record) -> None:
        failed = 0 if record["kind"] == "answer" else record["errors"] + record["empty"]
        self.failed += failed
        self.answers += record["kind"] == "answer"
        if not self.first and (record["kind"] == "answer" or failed):
            self.first = record["time"]
            self.full_from = _later(self.first, self.min_duration) if self.min_duration else self.first
        self.last = max(self.last, record["time"])
        self.counts[segment] = self.counts.get(segment, 0) + 1


def plan(
    journal: Mapping[str, list[Record]],
    feedback: Mapping[str, list[Record]],
    cursors: Mapping[str, int],
    settings: TrafficWindows,
    now: datetime | None,
) -> Iterator[Plan]:
    """The windows that close by ``now``, oldest first. ``cursors``: segment -> first number not yet in a window.

    The same records give the same windows, however often this is called in between, except for those closed by time. None
    for ``now`` means that later records exist which are not passed in, so time closes nothing yet.
    """
    journal_queues = {stem: _Queue(records) for stem, records in journal.items() if records}
    feedback_queues = {stem: _Queue(records) for stem, records in feedback.items() if records}
    starts = dict(cursors)
    while journal_queues:
        filled = _fill(journal_queues, settings, now)
        if filled is None:
            return
        ranges, lost = _advance(journal_queues, filled.counts, starts)
        arrived = {stem: queue.count_until(filled.last) for stem, queue in feedback_queues.items()}
        label_ranges, labels_lost = _advance(feedback_queues, arrived, starts)
        count = sum(arrived.values())
        yield Plan(filled.release, filled.answers, ranges, label_ranges, count, lost + labels_lost)


def _fill(queues: Queues, settings: TrafficWindows, now: datetime | None) -> _OpenWindow | None:
    """A window of the earliest answer's release, filled in the order of time until it closes; None if it does not."""
    heads = [(queue.records[queue.used]["time"], stem, queue.used) for stem, queue in queues.items()]
    heapq.heapify(heads)
    window = _OpenWindow(_release(queues), timedelta(seconds=settings.least_seconds))
    blocked = False
    while heads:
        time, stem, position = heapq.heappop(heads)
        records = queues[stem].records
        record = records[position]
        if record["kind"] == "answer" and record["release"] != window.release:
            blocked = True  # this worker has swapped the release: its records from here on belong to the next window
            continue
        window.add(stem, record)
        if window.answers >= settings.count and time >= window.full_from:
            return window
        if position + 1 < len(records):
            heapq.heappush(heads, (records[position + 1]["time"], stem, position + 1))
    return window if blocked or (now is not None and _due(window, settings, now)) else None


def _due(window: _OpenWindow, settings: TrafficWindows, now: datetime) -> bool:
    """Whether time closes a window that nothing else closes."""
    full = window.answers >= settings.count
    if not full and window.answers + window.failed < settings.minimum:
        return False
    seconds = settings.least_seconds if full else settings.seconds
    return as_moment(window.first) + timedelta(seconds=seconds) <= now


def _release(queues: Queues) -> str:
    """The release of the earliest answer; without answers, of the earliest status record."""
    answers = [record for record in (queue.first_answer() for queue in queues.values()) if record is not None]
    records = answers or [queue.records[queue.used] for queue in queues.values()]
    return str(min(records, key=lambda record: str(record["time"]))["release"])


def _advance(queues: Queues, counts: Mapping[str, int], starts: dict[str, int]) -> tuple[Ranges, int]:
    """Remove ``counts`` records from ``queues`` and advance ``starts``; (their ranges, the record numbers without a record)."""
    ranges: Ranges = {}
    lost = 0
    for stem, count in counts.items():
        if not count:
            continue
        queue = queues[stem]
        queue.used += count
        start, stop = starts.get(stem, 0), queue.records[queue.used - 1]["n"] + 1
        ranges[stem] = (start, stop)
        lost += stop - start - count
        starts[stem] = stop
        if queue.used == len(queue.records):
            del queues[stem]
    return ranges, lost


def as_moment(time: str) -> datetime:
    """A record's time."""
    return datetime.fromisoformat(time)


def _later(time: str, by: timedelta) -> str:
    """``time`` plus ``by``, in the format of the records."""
    return (as_moment(time) + by).astimezone(UTC).isoformat(timespec="microseconds")
