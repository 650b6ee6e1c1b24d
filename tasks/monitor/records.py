"""Readers of the journal: an outline of the unread records, and the full records of a window.

Windows are planned from the outline. A window's records are read forwards; a segment, which holds many windows, is read once
as long as the windows follow each other.
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
"""Fields that decide which window a record belongs to."""


@dataclass(frozen=True)
class UnreadRecords:
    """Records that belong to no window yet."""

    records: dict[str, list[Record]]
    """Segment -> outlines, by number."""
    whole: frozenset[str]
    """Segments whose records are all included."""
    until: str | None
    """Time before which all records are included; None where they are all there are."""


def read_unread(
    folder: Path, cursors: Mapping[str, int], done: frozenset[str] = frozenset(), most: int | None = None
) -> UnreadRecords:
    """The intact records of each segment from its cursor on; segments in ``done`` are not opened.

    Once ``most`` records are read, later segments are skipped, and only records older than those segments are returned.
    """
    outlines: dict[str, list[Record]] = {}
    count, until = 0, None
    for path in segments(folder):
        stem = stem_of(path)
        if stem in done:
            continue
        if most is not None and count >= most:
            until = segment_start(stem)
            break
        outlines[stem] = [outline(record) for record in read(path, cursors.get(stem, 0))]
        count += len(outlines[stem])
    if until is None:
        return UnreadRecords(outlines, frozenset(outlines), None)
    early = {stem: _before(records, until) for stem, records in outlines.items()}
    return UnreadRecords(early, frozenset(stem for stem in outlines if len(early[stem]) == len(outlines[stem])), until)


def outline(record: Mapping[str, Any]) -> Record:
    """The fields of a record that decide about its window; kind and release repeat, so their strings are interned."""
    fields = {name: record[name] for name in OUTLINE if name in record}
    return fields | {name: sys.intern(fields[name]) for name in ("kind", "release") if name in fields}


def segment_start(stem: str) -> str:
    """When a segment was created, in the time format of its records; none of them is older."""
    moment = datetime.strptime(stem.partition("-")[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    return moment.isoformat(timespec="microseconds")


def _before(records: list[Record], time: str) -> list[Record]:
    """The leading records that are older than ``time``."""
    return records[: next((index for index, record in enumerate(records) if record["time"] >= time), len(records))]


class Reader:
    """The records of ``folder``, range by range. Consecutive ranges are read without seeking back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[str, _SegmentReader] = {}

    def read(self, ranges: Mapping[str, tuple[int, int]]) -> Iterator[tuple[str, Record]]:
        """(segment, record) of the records in ``ranges`` that still exist, segment by segment."""
        for stem, (start, stop) in ranges.items():
            for record in self._segments.setdefault(stem, _SegmentReader(self.folder / stem)).read(start, stop):
                yield stem, record


class _SegmentReader:
    """One segment, and how far it has been read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._next = 0, 0

    def read(self, start: int, stop: int) -> Iterator[Record]:
        """The intact records with ``start`` <= n < ``stop``; none where the segment is gone."""
        file = self._open()
        if file is None:
            return
        if start < self._next:
            self._offset, self._next = 0, 0
        with file:
            file.seek(self._offset)
            for line in file:
                number = number_of(line)
                record = decode(line[:-1]) if number is not None and number >= start else None
                if not line.endswith(b"\n") or (record is not None and record["n"] >= stop):
                    break
                self._offset += len(line)
                if record is not None:
                    self._next = record["n"] + 1
                    yield record
        self._next = max(self._next, stop)

    def _open(self) -> BinaryIO | None:
        """Open the segment; its writer may close, that is rename, it meanwhile."""
        for suffix in (OPEN, CLOSED, OPEN, CLOSED):
            try:
                return self._path.with_suffix(suffix).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None
