"""What the monitor has done, in one SQLite file: windows, decisions, intents. Each exactly once, whatever dies.

A window is *cut* in one transaction (its ranges and the cursors behind them) and *judged* in one (signals, decision
and, where one is due, the intent). A killed monitor begins again where the last whole transaction ended. Two monitors
at once take turns: every transaction locks before it reads.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from service.journal import segments, stem_of
from tasks.monitor.policy import Attempt, Decision, Seen
from tasks.monitor.signals import Signal
from tasks.monitor.stored import SCHEMA, Intent, Window, read_seen, read_window
from tasks.monitor.windows import Plan, Windows, plan, unread
from tasks.stage import StageError

__all__ = ["Intent", "State", "Window"]

INTENTS = ("recalibrate", "restill", "rollback")
"""Actions that are written down before they are taken."""


class State:
    """Raises StageError where the file is no database of ours."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise StageError(f"{path}: {error}; move it away to begin anew with all segments that are there") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield self._base
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    # Windows

    def cut(self, journal: Path, feedback: Path, settings: Windows, now: datetime) -> list[Window]:
        """Cut every window that closes by ``now``, in one transaction; those that are new."""
        with self._transaction() as base:
            cursors = {row[0]: (row[1], bool(row[2])) for row in base.execute("SELECT * FROM cursors")}
            starts = {segment: start for segment, (start, _) in cursors.items()}
            done = frozenset(segment for segment, (_, finished) in cursors.items() if finished)
            there = [*segments(journal), *segments(feedback)]  # listed before they are read: what is closed here is read whole
            closed = {stem_of(path) for path in there if path.suffix == ".log"}
            answers, labels = unread(journal, starts, done), unread(feedback, starts, done)
            gone = starts.keys() - done - {stem_of(path) for path in there}
            windows: list[Window] = []
            for planned in plan(answers, labels, starts, settings, now):
                windows.append(self._insert(planned, len(gone) if not windows else 0))
            self._move(windows, answers | labels, starts, closed, gone if windows else set())
        return windows

    def _insert(self, planned: Plan, gone: int) -> Window:
        planned = Plan(**asdict(planned) | {"lost": planned.lost + gone})
        identity = hashlib.sha256(json.dumps([planned.journal, planned.feedback], sort_keys=True).encode()).hexdigest()[:16]
        values = (identity, json.dumps(asdict(planned)), planned.release, planned.rows, planned.labels)
        done = self._base.execute("INSERT INTO windows (id, plan, release, rows, labels) VALUES (?, ?, ?, ?, ?)", values)
        return Window(int(done.lastrowid or 0), identity, planned)

    def _move(
        self, windows: list[Window], tails: dict[str, Any], starts: dict[str, int], closed: set[str], gone: set[str]
    ) -> None:
        """Cursors behind the new windows; a closed segment that is read to its end is never opened again."""
        ends = dict(starts)
        for window in windows:
            for ranges in (window.plan.journal, window.plan.feedback):
                ends |= {segment: stop for segment, (_, stop) in ranges.items()}
        for segment in ends.keys() | tails.keys() | gone:
            end, tail = ends.get(segment, 0), tails.get(segment, [])
            finished = segment in gone or (segment in closed and segment in tails and (not tail or tail[-1]["n"] < end))
            if end != starts.get(segment) or finished:
                self._base.execute(
                    "INSERT INTO cursors VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET next = ?2, done = ?3",
                    (segment, end, int(finished)),
                )

    def unjudged(self) -> list[Window]:
        """Windows that are cut and not judged, oldest first."""
        rows = self._base.execute(
            "SELECT number, id, plan FROM windows WHERE number NOT IN (SELECT window FROM decisions) ORDER BY number"
        )
        return [read_window(row) for row in rows]

    def window(self, number: int) -> Window:
        row = self._base.execute("SELECT number, id, plan FROM windows WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise StageError(f"window {number}: not in the monitor's state")
        return read_window(row)

    # Decisions

    def judge(
        self, window: Window, signals: tuple[Signal, ...], decision: Decision, now: datetime, **facts: Any
    ) -> Intent | None:
        """Write down what was seen, what was decided and, where it is due, the intent with its ``facts``: all or nothing.

        The intent is the open one of that kind where there is one: a second restill is merged into the first. A
        window that is judged already stays as it is.
        """
        with self._transaction() as base:
            known = base.execute("SELECT intent FROM decisions WHERE window = ?", (window.number,)).fetchone()
            if known is not None:
                return self.intent(known[0]) if known[0] is not None else None
            due = decision.action in INTENTS
            intent = self._intend(decision.action, decision.id, window.number, now, facts) if due else None
            base.execute(
                "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    window.number,
                    decision.id,
                    decision.action,
                    json.dumps(asdict(decision)),
                    json.dumps([asdict(signal) for signal in signals]),
                    intent,
                    now.isoformat(),
                ),
            )
        return self.intent(intent) if intent is not None else None

    def ask(self, why: str, now: datetime) -> Intent:
        """A restill that a person wants: the open one where there is one, else a new one; ``why`` stands for its decision."""
        with self._transaction() as base:
            number = int(base.execute("SELECT total(n) FROM (SELECT max(number) AS n FROM windows)").fetchone()[0])
            intent = self._intend("restill", f"{now.isoformat()} by hand: {why}", number, now, {})
        return self.intent(intent)

    def _intend(self, kind: str, decision: str, number: int, now: datetime, facts: dict[str, Any]) -> int:
        """The open intent of this kind, else a new one as of window ``number``."""
        open_one = self._base.execute("SELECT id FROM intents WHERE outcome IS NULL AND kind = ?", (kind,)).fetchone()
        if open_one is not None:
            return int(open_one[0])
        labels = self._base.execute("SELECT total(labels) FROM windows WHERE number <= ?", (number,)).fetchone()[0]
        done = self._base.execute(
            "INSERT INTO intents (kind, created, decision, window, step, facts, labels) VALUES (?, ?, ?, ?, 'open', ?, ?)",
            (kind, now.isoformat(), decision, number, json.dumps(facts), int(labels)),
        )
        return int(done.lastrowid or 0)

    def past(self, before: int, count: int) -> tuple[Seen, ...]:
        """The last ``count`` judged windows with a number below ``before``, oldest first."""
        rows = self._base.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number < ? ORDER BY number DESC LIMIT ?",
            (before, count),
        ).fetchall()
        return tuple(map(read_seen, reversed(rows)))

    def unshown(self, effect: str, count: int) -> tuple[Seen, ...]:
        """Of the last ``count`` judged windows those that ``effect`` has not shown to people yet, oldest first."""
        rows = self._base.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number IN (SELECT window FROM decisions ORDER BY window DESC LIMIT ?) "
            "AND number NOT IN (SELECT window FROM shown WHERE effect = ?) ORDER BY number",
            (count, effect),
        )
        return tuple(map(read_seen, rows))

    def show(self, effect: str, number: int) -> None:
        """Write down that ``effect`` has shown the window; again is no harm."""
        self._base.execute("INSERT OR IGNORE INTO shown VALUES (?, ?)", (number, effect))

    def labelled(self, number: int) -> int:
        """Feedback records of windows up to ``number`` that no snapshot holds yet: since the last restill that was tried."""
        row = self._base.execute(
            "SELECT total(labels) - ifnull((SELECT max(labels) FROM intents WHERE kind = 'restill' AND window < ?1 "
            "AND outcome IS NOT 'failed'), 0) FROM windows WHERE number <= ?1",
            (number,),
        ).fetchone()
        return int(row[0])

    # Intents

    def attempts(self) -> tuple[Attempt, ...]:
        rows = self._base.execute("SELECT kind, window, finished, outcome FROM intents ORDER BY id")
        return tuple(Attempt(*row) for row in rows)

    def open_intent(self, kind: str | None = None) -> Intent | None:
        """The oldest intent that is not closed, of this kind or of any; a restill comes last."""
        row = self._base.execute(
            "SELECT id FROM intents WHERE outcome IS NULL AND kind = ifnull(?, kind) ORDER BY kind = 'restill', id", (kind,)
        ).fetchone()
        return self.intent(row[0]) if row else None

    def intent(self, identity: int) -> Intent:
        row = self._base.execute(
            "SELECT id, kind, created, decision, window, step, facts, outcome FROM intents WHERE id = ?", (identity,)
        ).fetchone()
        if row is None:
            raise StageError(f"intent {identity}: not in the monitor's state")
        identity, kind, created, decision, window, step, facts, outcome = row
        return Intent(identity, kind, created, decision, window, step, json.loads(facts), outcome)

    def advance(self, identity: int, step: str, **facts: Any) -> Intent:
        """Write down that ``step`` is reached, and what it found; again is no harm. StageError where it is closed."""
        with self._transaction() as base:
            intent = self.intent(identity)
            if intent.outcome is not None:
                raise StageError(f"intent {identity}: ended as {intent.outcome}; step {step} comes too late")
            base.execute(
                "UPDATE intents SET step = ?, facts = ? WHERE id = ?", (step, json.dumps(intent.facts | facts), identity)
            )
        return self.intent(identity)

    def end(self, identity: int, outcome: str, **facts: Any) -> Intent:
        """Close the intent: promoted | rejected | failed | rolled back ... Again with the same outcome is no harm.

        "failed" says that no snapshot was used up: its labels count for the next restill. The cooldown counts from here.
        """
        with self._transaction() as base:
            intent = self.intent(identity)
            if intent.outcome not in (None, outcome):
                raise StageError(f"intent {identity}: ended as {intent.outcome}, and cannot end as {outcome}")
            if intent.outcome is None:
                base.execute(
                    "UPDATE intents SET outcome = ?, step = ?, facts = ?, finished = (SELECT max(number) FROM windows) "
                    "WHERE id = ?",
                    (outcome, outcome, json.dumps(intent.facts | facts), identity),
                )
        return self.intent(identity)
