"""Where one window of the traffic ends and the next begins: planned from records, without a clock or a database.

A window is a range of record numbers of each segment. It closes at ``count`` answers; or ``seconds`` after its first
answer or failure, where it holds at least ``minimum``; or where the release changes, because all answers of one window
are of one release. Status records lie between the answers and go with them. Feedback goes to the first window that closes after
it came: a label is late by nature, and what it says is about the release that had answered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from service.journal import read, segments, stem_of
from tasks.stage import Settings

Record = dict[str, Any]
Ranges = dict[str, tuple[int, int]]
"""Segment -> (first record number, one past the last)."""


class Windows(Settings):
    count: int = Field(ge=1)
    """Answers that make a window."""
    seconds: float = Field(gt=0)
    """So long after its first answer or failure a window closes, where it holds the minimum."""
    minimum: int = Field(ge=1)
    """Requests below which time alone closes no window: it would only measure noise."""


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
class _Open:
    """A window while it is filled."""

    release: str
    answers: int = 0
    failed: int = 0
    first: str = ""
    """Time of its first answer or failure: a worker that only says that it lives opens no window."""
    last: str = ""
    """Time of its last record."""
    ends: dict[str, int] = field(default_factory=dict)
    """Segment -> how many of its unread records are in."""

    def take(self, segment: str, record: Record) -> None:
        failed = 0 if record["kind"] == "answer" else record["errors"] + record["empty"]
        self.failed += failed
        self.answers += record["kind"] == "answer"
        if record["kind"] == "answer" or failed:
            self.first = self.first or record["time"]
        self.last = max(self.last, record["time"])
        self.ends[segment] = self.ends.get(segment, 0) + 1


def unread(folder: Path, cursors: Mapping[str, int], done: frozenset[str] = frozenset()) -> dict[str, list[Record]]:
    """The intact records of each segment that lie at its cursor or after it; segments in ``done`` are not opened."""
    found = {stem_of(path): path for path in segments(folder)}
    return {stem: read(path, cursors.get(stem, 0)) for stem, path in found.items() if stem not in done}


def plan(
    journal: Mapping[str, list[Record]],
    feedback: Mapping[str, list[Record]],
    cursors: Mapping[str, int],
    settings: Windows,
    now: datetime,
) -> Iterator[Plan]:
    """The windows that close by ``now``, oldest first. ``cursors``: segment -> first number not yet in a window.

    The same records give the same windows, however often it is asked in between, but for those that time closes.
    """
    rest = {stem: list(records) for stem, records in journal.items() if records}
    labels = {stem: list(records) for stem, records in feedback.items() if records}
    starts = dict(cursors)
    while rest:
        filled = _fill(rest, settings, now)
        if filled is None:
            return
        ranges, lost = _advance(rest, filled.ends, starts)
        arrived = {stem: _until(records, filled.last) for stem, records in labels.items()}
        label_ranges, labels_lost = _advance(labels, arrived, starts)
        count = sum(arrived.values())
        yield Plan(filled.release, filled.answers, ranges, label_ranges, count, lost + labels_lost)


def _fill(rest: Mapping[str, list[Record]], settings: Windows, now: datetime) -> _Open | None:
    """Take records in the order of time, of the release of the earliest answer, until the window closes.

    None where it does not close yet.
    """
    heads = [(records[0]["time"], stem, 0) for stem, records in rest.items()]
    heapq.heapify(heads)
    window = _Open(_release(rest))
    blocked = False
    while heads:
        _, stem, position = heapq.heappop(heads)
        record = rest[stem][position]
        if record["kind"] == "answer" and record["release"] != window.release:
            blocked = True  # this worker has swapped: what it wrote from here on waits for the next window
            continue
        window.take(stem, record)
        if window.answers == settings.count:
            return window
        if position + 1 < len(rest[stem]):
            heapq.heappush(heads, (rest[stem][position + 1]["time"], stem, position + 1))
    enough = window.answers + window.failed >= settings.minimum
    due = enough and as_moment(window.first) + timedelta(seconds=settings.seconds) <= now
    return window if blocked or due else None


def _release(rest: Mapping[str, list[Record]]) -> str:
    """The release of the earliest answer; where nothing was answered, of the earliest status."""
    firsts = [next((r for r in records if r["kind"] == "answer"), None) for records in rest.values()]
    answers = [record for record in firsts if record is not None]
    earliest = min(answers or [records[0] for records in rest.values()], key=lambda record: str(record["time"]))
    return str(earliest["release"])


def _until(records: list[Record], last: str) -> int:
    """How many of the first records came no later than ``last``."""
    return next((position for position, record in enumerate(records) if record["time"] > last), len(records))


def _advance(rest: dict[str, list[Record]], counts: Mapping[str, int], starts: dict[str, int]) -> tuple[Ranges, int]:
    """Remove the taken records from ``rest``, move ``starts`` on; the ranges taken and how many numbers in them had none."""
    ranges: Ranges = {}
    lost = 0
    for stem, count in counts.items():
        if not count:
            continue
        start, stop = starts.get(stem, 0), rest[stem][count - 1]["n"] + 1
        ranges[stem] = (start, stop)
        lost += stop - start - count
        starts[stem] = stop
        rest[stem] = rest[stem][count:]
        if not rest[stem]:
            del rest[stem]
    return ranges, lost


def as_moment(time: str) -> datetime:
    """A record's time."""
    return datetime.fromisoformat(time)


def load(folder: Path, ranges: Mapping[str, tuple[int, int]]) -> list[Record]:
    """The records of a window that are still there, in the order of time."""
    found = {stem_of(path): path for path in segments(folder)}
    records = []
    for stem, (start, stop) in ranges.items():
        if stem in found:
            records += [record for record in read(found[stem], start) if record["n"] < stop]
    return sorted(records, key=lambda record: str(record["time"]))
