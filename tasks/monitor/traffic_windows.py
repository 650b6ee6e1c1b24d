"""Where one window of the traffic ends and the next begins: planned from records, without a clock or a database.

A window is a range of record numbers of each segment. It closes at ``count`` answers, but not within ``least_seconds`` of
its first: where traffic is dense it holds all answers of that time, and grows with them. It also closes ``seconds`` after
its first answer or failure, where it holds at least ``minimum``; or where the release changes, because all answers of one
window are of one release. Status records lie between the answers and go with them. Feedback goes to the first window that
closes after it came: a label is late by nature, and what it says is about the release that had answered.
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
    """Answers that make a window, and that are measured of one which holds more."""
    least_seconds: float = Field(ge=0)
    """So long a window lasts at least, however many answers come in that time."""
    seconds: float = Field(gt=0)
    """So long after its first answer or failure a window closes, where it holds the minimum."""
    minimum: int = Field(ge=1)
    """Requests below which time alone closes no window: it would only measure noise."""

    @model_validator(mode="after")
    def _least_is_less(self) -> TrafficWindows:
        if self.least_seconds > self.seconds:
            raise ValueError(f"least_seconds = {self.least_seconds:g} is more than seconds = {self.seconds:g}")
        return self


@dataclass(frozen=True)
class Plan:
    """A window that may be cut."""

    release: str
    rows: int
    """Answers."""
    journal: Ranges
    feedback: Ranges
    labels: int
    """Feedback records."""
    lost: int
    """Records that the ranges should hold and do not: broken lines, and segments gone before they were read to the end."""


@dataclass
class _Queue:
    """The records of a segment, and how many of them are in windows."""

    records: list[Record]
    taken: int = 0

    def first_answer(self) -> Record | None:
        rest = (self.records[place] for place in range(self.taken, len(self.records)))
        return next((record for record in rest if record["kind"] == "answer"), None)

    def until(self, time: str) -> int:
        """How many of the next records came no later than ``time``."""
        place = self.taken
        while place < len(self.records) and self.records[place]["time"] <= time:
            place += 1
        return place - self.taken


Queues = dict[str, _Queue]


@dataclass
class _Open:
    """A window while it is filled."""

    release: str
    least: timedelta
    answers: int = 0
    failed: int = 0
    first: str = ""
    """Time of its first answer or failure: a worker that only says that it lives opens no window."""
    full_from: str = ""
    """Time from which its number of answers closes it."""
    last: str = ""
    """Time of its last record."""
    ends: dict[str, int] = field(default_factory=dict)
    """Segment -> how many of its unread records are in."""

    def take(self, segment: str, record: Record) -> None:
        failed = 0 if record["kind"] == "answer" else record["errors"] + record["empty"]
        self.failed += failed
        self.answers += record["kind"] == "answer"
        if not self.first and (record["kind"] == "answer" or failed):
            self.first = record["time"]
            self.full_from = _later(self.first, self.least) if self.least else self.first
        self.last = max(self.last, record["time"])
        self.ends[segment] = self.ends.get(segment, 0) + 1


def plan(
    journal: Mapping[str, list[Record]],
    feedback: Mapping[str, list[Record]],
    cursors: Mapping[str, int],
    settings: TrafficWindows,
    now: datetime | None,
) -> Iterator[Plan]:
    """The windows that close by ``now``, oldest first. ``cursors``: segment -> first number not yet in a window.

    The same records give the same windows, however often it is asked in between, but for those that time closes. None
    for ``now``: there are later records, which are not given, so time closes nothing yet.
    """
    rest = {stem: _Queue(records) for stem, records in journal.items() if records}
    labels = {stem: _Queue(records) for stem, records in feedback.items() if records}
    starts = dict(cursors)
    while rest:
        filled = _fill(rest, settings, now)
        if filled is None:
            return
        ranges, lost = _advance(rest, filled.ends, starts)
        arrived = {stem: queue.until(filled.last) for stem, queue in labels.items()}
        label_ranges, labels_lost = _advance(labels, arrived, starts)
        count = sum(arrived.values())
        yield Plan(filled.release, filled.answers, ranges, label_ranges, count, lost + labels_lost)


def _fill(rest: Queues, settings: TrafficWindows, now: datetime | None) -> _Open | None:
    """Take records in the order of time, of the release of the earliest answer, until the window closes.

    None where it does not close yet.
    """
    heads = [(queue.records[queue.taken]["time"], stem, queue.taken) for stem, queue in rest.items()]
    heapq.heapify(heads)
    window = _Open(_release(rest), timedelta(seconds=settings.least_seconds))
    blocked = False
    while heads:
        time, stem, position = heapq.heappop(heads)
        records = rest[stem].records
        record = records[position]
        if record["kind"] == "answer" and record["release"] != window.release:
            blocked = True  # this worker has swapped: what it wrote from here on waits for the next window
            continue
        window.take(stem, record)
        if window.answers >= settings.count and time >= window.full_from:
            return window
        if position + 1 < len(records):
            heapq.heappush(heads, (records[position + 1]["time"], stem, position + 1))
    return window if blocked or (now is not None and _due(window, settings, now)) else None


def _due(window: _Open, settings: TrafficWindows, now: datetime) -> bool:
    """Whether time closes a window that nothing else has closed."""
    full = window.answers >= settings.count
    if not full and window.answers + window.failed < settings.minimum:
        return False
    seconds = settings.least_seconds if full else settings.seconds
    return as_moment(window.first) + timedelta(seconds=seconds) <= now


def _release(rest: Queues) -> str:
    """The release of the earliest answer; where nothing was answered, of the earliest status."""
    answers = [record for record in (queue.first_answer() for queue in rest.values()) if record is not None]
    records = answers or [queue.records[queue.taken] for queue in rest.values()]
    return str(min(records, key=lambda record: str(record["time"]))["release"])


def _advance(rest: Queues, counts: Mapping[str, int], starts: dict[str, int]) -> tuple[Ranges, int]:
    """Take records out of ``rest``, move ``starts`` on; the ranges taken and how many numbers in them had none."""
    ranges: Ranges = {}
    lost = 0
    for stem, count in counts.items():
        if not count:
            continue
        queue = rest[stem]
        queue.taken += count
        start, stop = starts.get(stem, 0), queue.records[queue.taken - 1]["n"] + 1
        ranges[stem] = (start, stop)
        lost += stop - start - count
        starts[stem] = stop
        if queue.taken == len(queue.records):
            del rest[stem]
    return ranges, lost


def as_moment(time: str) -> datetime:
    """A record's time."""
    return datetime.fromisoformat(time)


def _later(time: str, by: timedelta) -> str:
    """A later time, written as records write it."""
    return (as_moment(time) + by).astimezone(UTC).isoformat(timespec="microseconds")
