"""Cutting of windows: unread records are assigned to windows, and the cursors advance. Within the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from service.segments import CLOSED, segments, stem_of
from tasks.monitor.records import UnreadRecords, read_unread
from tasks.monitor.state_schema import TrafficWindow
from tasks.monitor.traffic_windows import Plan, TrafficWindows, plan


def cut_batch(
    connection: sqlite3.Connection, journal: Path, feedback: Path, settings: TrafficWindows, now: datetime, most: int
) -> tuple[list[TrafficWindow], bool]:
    """Cut the windows that close among about ``most`` of the oldest records; (windows, whether there are later records)."""
    cursors = {row[0]: (row[1], bool(row[2])) for row in connection.execute("SELECT * FROM cursors")}
    starts = {segment: start for segment, (start, _) in cursors.items()}
    done = frozenset(segment for segment, (_, finished) in cursors.items() if finished)
    paths = [*segments(journal), *segments(feedback)]  # listed before they are read: a segment closed now is read to its end
    closed = {stem_of(path) for path in paths if path.suffix == CLOSED}
    removed = starts.keys() - done - {stem_of(path) for path in paths}
    answers, labels = read_unread(journal, starts, done, most), read_unread(feedback, starts, done)
    windows: list[TrafficWindow] = []
    for planned in plan(answers.records, labels.records, starts, settings, now if answers.until is None else None):
        windows.append(_insert(connection, planned, len(removed) if not windows else 0))
    for unread in (answers, labels):
        _advance_cursors(connection, windows, unread, starts, closed)
    if windows:
        connection.executemany("UPDATE cursors SET done = 1 WHERE segment = ?", [(segment,) for segment in removed])
    return windows, answers.until is not None


def _insert(connection: sqlite3.Connection, planned: Plan, removed: int) -> TrafficWindow:
    planned = Plan(**asdict(planned) | {"lost": planned.lost + removed})
    identity = hashlib.sha256(json.dumps([planned.journal, planned.feedback], sort_keys=True).encode()).hexdigest()[:16]
    values = (identity, json.dumps(asdict(planned)), planned.release, planned.rows, planned.labels)
    cursor = connection.execute("INSERT INTO windows (id, plan, release, rows, labels) VALUES (?, ?, ?, ?, ?)", values)
    return TrafficWindow(int(cursor.lastrowid or 0), identity, planned)


def _advance_cursors(
    connection: sqlite3.Connection,
    windows: list[TrafficWindow],
    unread: UnreadRecords,
    starts: dict[str, int],
    closed: set[str],
) -> None:
    """Move the cursors past the new windows; a closed segment that was read to its end is never opened again."""
    ends: dict[str, int] = {}
    for window in windows:
        for ranges in (window.plan.journal, window.plan.feedback):
            ends |= {segment: stop for segment, (_, stop) in ranges.items()}
    for segment, records in unread.records.items():
        start = starts.get(segment, 0)
        end = ends.get(segment, start)
        finished = segment in closed and segment in unread.whole and (not records or records[-1]["n"] < end)
        if end != start or finished:
            connection.execute(
                "INSERT INTO cursors VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = ?2, done = ?3",
                (segment, end, int(finished)),
            )
