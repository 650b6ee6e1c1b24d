"""Records of the journal as the monitor reads them: what is new in outline, a window's own records one after the other.

The outline is what windows are planned by. A window's records are read forwards, each segment once as long as the windows
follow each other, for a segment holds many windows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from service.segments import CLOSED, OPEN, decode, number_of, read, segments, stem_of

Record = dict[str, Any]
Ranges = dict[str, tuple[int, int]]
"""Segment -> (first record number, one past the last)."""

OUTLINE = ("kind", "n", "time", "release", "errors", "empty")
"""What decides about the window that a record belongs to."""


@dataclass(frozen=True)
class Unread:
    """Records that are in no window yet."""

    records: dict[str, list[Record]]
    """Of each segment, in outline, by their numbers."""
    whole: frozenset[str]
    """Segments of which there is no later record."""
    until: str | None
    """Time before which all records are here; None where there is none but these."""


def unread(folder: Path, cursors: Mapping[str, int], done: frozenset[str] = frozenset(), most: int | None = None) -> Unread:
    """The intact records of each segment that lie at its cursor or after it; segments in ``done`` are not opened.

    Of the latest segments none is read once there are ``most`` records, and then only what is older than those.
    """
    found: dict[str, list[Record]] = {}
    count, until = 0, None
    for path in segments(folder):
        stem = stem_of(path)
        if stem in done:
            continue
        if most is not None and count >= most:
            until = begun(stem)
            break
        found[stem] = [outline(record) for record in read(path, cursors.get(stem, 0))]
        count += len(found[stem])
    if until is None:
        return Unread(found, frozenset(found), None)
    early = {stem: _before(records, until) for stem, records in found.items()}
    return Unread(early, frozenset(stem for stem in found if len(early[stem]) == len(found[stem])), until)


def outline(record: Mapping[str, Any]) -> Record:
    """What decides about the window of a record; most are of one release and one kind, so their names are held once."""
    held = {name: record[name] for name in OUTLINE if name in record}
    return held | {name: sys.intern(held[name]) for name in ("kind", "release") if name in held}


def begun(stem: str) -> str:
    """When a segment was begun, as its records tell time; they are no older."""
    moment = datetime.strptime(stem.partition("-")[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds")


def _before(records: list[Record], time: str) -> list[Record]:
    """The first records, up to one that is not older than ``time``."""
    return records[: next((place for place, record in enumerate(records) if record["time"] >= time), len(records))]


class Reader:
    """The records of ``folder``, range by range. Ranges that follow each other are read without looking back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tails: dict[str, _Tail] = {}

    def read(self, ranges: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, Record]]:
        """(segment, record) of what is still there in ``ranges``, segment by segment."""
        for stem, (start, stop) in ranges.items():
            for record in self._tails.setdefault(stem, _Tail(self.folder / stem)).read(start, stop):
                yield stem, record


class _Tail:
    """One segment, and how far it has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place, self._next = 0, 0

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """The whole records with ``n`` from ``start`` up to ``stop``; none where the segment is gone."""
        file = self._open()
        if file is None:
            return
        if start < self._next:
            self._place, self._next = 0, 0
        with file:
            file.seek(self._place)
            for line in file:
                number = number_of(line)
                record = decode(line[:-1]) if number is not None and number >= start else None
                if not line.endswith(b"\n") or (record is not None and record["n"] >= stop):
                    break
                self._place += len(line)
                if record is not None:
                    self._next = record["n"] + 1
                    yield record
        self._next = max(self._next, stop)

    def _open(self) -> BinaryIO | None:
        """Its writer may close it, which is to rename it, meanwhile."""
        for suffix in (OPEN, CLOSED, OPEN, CLOSED):
            try:
                return self._path.with_suffix(suffix).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None
