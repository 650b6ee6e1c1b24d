"""Windows are cut: what is unread goes into windows, and the cursors move behind them. Within the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from service.segments import CLOSED, segments, stem_of
from tasks.monitor.records import Unread, unread
from tasks.monitor.stored import TrafficWindow
from tasks.monitor.traffic_windows import Plan, TrafficWindows, plan


def cut_some(
    base: sqlite3.Connection, journal: Path, feedback: Path, settings: TrafficWindows, now: datetime, most: int
) -> tuple[list[TrafficWindow], bool]:
    """Cut the windows that close among the oldest records, ``most`` or somewhat more; whether there are later records."""
    cursors = {row[0]: (row[1], bool(row[2])) for row in base.execute("SELECT * FROM cursors")}
    starts = {segment: start for segment, (start, _) in cursors.items()}
    done = frozenset(segment for segment, (_, finished) in cursors.items() if finished)
    there = [*segments(journal), *segments(feedback)]  # listed before they are read: what is closed here is read whole
    closed = {stem_of(path) for path in there if path.suffix == CLOSED}
    gone = starts.keys() - done - {stem_of(path) for path in there}
    answers, labels = unread(journal, starts, done, most), unread(feedback, starts, done)
    windows: list[TrafficWindow] = []
    for planned in plan(answers.records, labels.records, starts, settings, now if answers.until is None else None):
        windows.append(_insert(base, planned, len(gone) if not windows else 0))
    for read in (answers, labels):
        _move(base, windows, read, starts, closed)
    if windows:
        base.executemany("UPDATE cursors SET done = 1 WHERE segment = ?", [(segment,) for segment in gone])
    return windows, answers.until is not None


def _insert(base: sqlite3.Connection, planned: Plan, gone: int) -> TrafficWindow:
    planned = Plan(**asdict(planned) | {"lost": planned.lost + gone})
    identity = hashlib.sha256(json.dumps([planned.journal, planned.feedback], sort_keys=True).encode()).hexdigest()[:16]
    values = (identity, json.dumps(asdict(planned)), planned.release, planned.rows, planned.labels)
    done = base.execute("INSERT INTO windows (id, plan, release, rows, labels) VALUES (?, ?, ?, ?, ?)", values)
    return TrafficWindow(int(done.lastrowid or 0), identity, planned)


def _move(
    base: sqlite3.Connection, windows: list[TrafficWindow], read: Unread, starts: dict[str, int], closed: set[str]
) -> None:
    """Cursors behind the new windows; a closed segment that is read to its end is never opened again."""
    ends: dict[str, int] = {}
    for window in windows:
        for ranges in (window.plan.journal, window.plan.feedback):
            ends |= {segment: stop for segment, (_, stop) in ranges.items()}
    for segment, tail in read.records.items():
        start = starts.get(segment, 0)
        end = ends.get(segment, start)
        finished = segment in closed and segment in read.whole and (not tail or tail[-1]["n"] < end)
        if end != start or finished:
            base.execute(
                "INSERT INTO cursors VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = ?2, done = ?3",
                (segment, end, int(finished)),
            )
