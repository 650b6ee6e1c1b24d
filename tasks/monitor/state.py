"""The monitor's state in one SQLite file: windows, decisions, intents, each stored exactly once, even after a crash.

Windows are *cut* in one transaction (their ranges and the new cursors) and *judged* in another (signals, decision and, where
one is due, the intent), many at once. A killed monitor resumes from the last committed transaction. Concurrent monitors take
turns: every transaction locks before it reads.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.monitor.cutting import cut_batch
from tasks.monitor.policy import Attempt, Decision, JudgedWindow
from tasks.monitor.signals import Signal
from tasks.monitor.state_schema import SCHEMA, Intent, TrafficWindow, read_judged_window, read_window
from tasks.monitor.traffic_windows import TrafficWindows
from tasks.stage import StageError

__all__ = ["Intent", "State", "TrafficWindow"]

INTENTS = ("recalibrate", "restill", "rollback")
"""Actions that are stored as intents before they are taken."""
AT_ONCE = 100_000
"""Records cut per transaction: they are in memory together, and a backlog may be days long."""


class State:
    """The state file, opened. Raises StageError where the file is not such a database."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(SCHEMA)
            self._label_total = 0, 0
        except sqlite3.DatabaseError as error:
            raise StageError(f"{path}: {error}; move it away to begin anew with all segments that are there") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """An atomic transaction; inside another one, a savepoint of it."""
        nested = self._connection.in_transaction
        self._connection.execute("SAVEPOINT part" if nested else "BEGIN IMMEDIATE")
        try:
            yield self._connection
            self._connection.execute("RELEASE part" if nested else "COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk rolls back by itself
                for statement in ("ROLLBACK TO part", "RELEASE part") if nested else ("ROLLBACK",):
                    self._connection.execute(statement)
            raise

    # Windows

    def cut(
        self, journal: Path, feedback: Path, settings: TrafficWindows, now: datetime, at_once: int = AT_ONCE
    ) -> list[TrafficWindow]:
        """Cut every window that closes by ``now``; the new windows. A long backlog takes several transactions."""
        windows: list[TrafficWindow] = []
        most = at_once
        while True:
            with self.transaction() as connection:
                new, more = cut_batch(connection, journal, feedback, settings, now, most)
            windows += new
            if not more:
                return windows
            most = at_once if new else 2 * most  # too few records to fill a window

    def unjudged(self, most: int = -1) -> list[TrafficWindow]:
        """At most ``most`` windows that are cut and not judged, oldest first. They are judged in this order."""
        rows = self._connection.execute(
            "SELECT number, id, plan FROM windows WHERE number > (SELECT ifnull(max(window), 0) FROM decisions) "
            "ORDER BY number LIMIT ?",
            (most,),
        )
        return [read_window(row) for row in rows]

    def window(self, number: int) -> TrafficWindow:
        row = self._connection.execute("SELECT number, id, plan FROM windows WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise StageError(f"window {number}: not in the monitor's state")
        return read_window(row)

    # Decisions

    def judge(
        self, window: TrafficWindow, signals: tuple[Signal, ...], decision: Decision, now: datetime, **facts: Any
    ) -> Intent | None:
        """Store signals, decision and, where one is due, the intent with its ``facts``, in one transaction.

        An open intent of that kind is reused: a second restill is merged into the first. A window that is judged already
        stays as it is.
        """
        with self.transaction() as connection:
            stored = connection.execute("SELECT intent FROM decisions WHERE window = ?", (window.number,)).fetchone()
            if stored is not None:
                return self.intent(stored[0]) if stored[0] is not None else None
            due = decision.action in INTENTS
            intent = self._open_or_create_intent(decision.action, decision.id, window.number, now, facts) if due else None
            connection.execute(
                "INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    window.number,
                    decision.id,
                    decision.action,
                    json.dumps(vars(decision)),
                    json.dumps([vars(signal) for signal in signals]),
                    intent,
                    now.isoformat(),
                ),
            )
        return self.intent(intent) if intent is not None else None

    def ask(self, why: str, now: datetime) -> Intent:
        """A restill requested by hand: the open intent, else a new one, with ``why`` in place of a decision."""
        with self.transaction() as connection:
            number = int(connection.execute("SELECT total(n) FROM (SELECT max(number) AS n FROM windows)").fetchone()[0])
            intent = self._open_or_create_intent("restill", f"{now.isoformat()} by hand: {why}", number, now, {})
        return self.intent(intent)

    def _open_or_create_intent(self, kind: str, decision: str, number: int, now: datetime, facts: dict[str, Any]) -> int:
        """Id of the open intent of this kind, else of a new one as of window ``number``."""
        row = self._connection.execute("SELECT id FROM intents WHERE outcome IS NULL AND kind = ?", (kind,)).fetchone()
        if row is not None:
            return int(row[0])
        cursor = self._connection.execute(
            "INSERT INTO intents (kind, created, decision, window, step, facts, labels) VALUES (?, ?, ?, ?, 'open', ?, ?)",
            (kind, now.isoformat(), decision, number, json.dumps(facts), self._labels(number)),
        )
        return int(cursor.lastrowid or 0)

    def past(self, before: int, count: int) -> tuple[JudgedWindow, ...]:
        """The last ``count`` judged windows with a number below ``before``, oldest first."""
        rows = self._connection.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number < ? ORDER BY number DESC LIMIT ?",
            (before, count),
        ).fetchall()
        return tuple(map(read_judged_window, reversed(rows)))

    def newest(self, before: int) -> int:
        """The number of the newest judged window below ``before``; 0 where there is none."""
        return int(
            self._connection.execute("SELECT ifnull(max(window), 0) FROM decisions WHERE window < ?", (before,)).fetchone()[0]
        )

    def unshown(self, effect: str, count: int) -> tuple[JudgedWindow, ...]:
        """Windows that ``effect`` still has to show, oldest first: of the last ``count`` judged windows the newest, and those
        that are news."""
        rows = self._connection.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number IN (SELECT window FROM decisions ORDER BY window DESC LIMIT ?) "
            "AND (json_extract(decision, '$.news') OR number = (SELECT max(window) FROM decisions)) "
            "AND number NOT IN (SELECT window FROM shown WHERE effect = ?) ORDER BY number",
            (count, effect),
        )
        return tuple(map(read_judged_window, rows))

    def show(self, effect: str, number: int) -> None:
        """Record that ``effect`` has shown the window. Idempotent."""
        self._connection.execute("INSERT OR IGNORE INTO shown VALUES (?, ?)", (number, effect))

    def labelled(self, number: int) -> int:
        """Feedback records in windows up to ``number`` that are in no snapshot: since the last restill that did not fail."""
        (in_snapshot,) = self._connection.execute(
            "SELECT ifnull(max(labels), 0) FROM intents WHERE kind = 'restill' AND window < ? AND outcome IS NOT 'failed'",
            (number,),
        ).fetchone()
        return self._labels(number) - int(in_snapshot)

    def _labels(self, number: int) -> int:
        """Number of feedback records in windows up to ``number``. Windows never change, so the sum is kept and extended."""
        upto, labels = self._label_total if self._label_total[0] <= number else (0, 0)
        added = self._connection.execute("SELECT total(labels) FROM windows WHERE number > ? AND number <= ?", (upto, number))
        self._label_total = number, labels + int(added.fetchone()[0])
        return self._label_total[1]

    # Intents

    def attempts(self) -> tuple[Attempt, ...]:
        rows = self._connection.execute("SELECT kind, window, finished, outcome FROM intents ORDER BY id")
        return tuple(Attempt(*row) for row in rows)

    def open_intent(self, kind: str | None = None) -> Intent | None:
        """The oldest open intent, of this kind or of any; restills come last."""
        row = self._connection.execute(
            "SELECT id FROM intents WHERE outcome IS NULL AND kind = ifnull(?, kind) ORDER BY kind = 'restill', id", (kind,)
        ).fetchone()
        return self.intent(row[0]) if row else None

    def intent(self, identity: int) -> Intent:
        row = self._connection.execute(
            "SELECT id, kind, created, decision, window, step, facts, outcome FROM intents WHERE id = ?", (identity,)
        ).fetchone()
        if row is None:
            raise StageError(f"intent {identity}: not in the monitor's state")
        identity, kind, created, decision, window, step, facts, outcome = row
        return Intent(identity, kind, created, decision, window, step, json.loads(facts), outcome)

    def advance(self, identity: int, step: str, **facts: Any) -> Intent:
        """Record that ``step`` is reached, with its ``facts``. Idempotent. Raises StageError where the intent is closed."""
        with self.transaction() as connection:
            intent = self.intent(identity)
            if intent.outcome is not None:
                raise StageError(f"intent {identity}: ended as {intent.outcome}; step {step} comes too late")
            connection.execute(
                "UPDATE intents SET step = ?, facts = ? WHERE id = ?", (step, json.dumps(intent.facts | facts), identity)
            )
        return self.intent(identity)

    def end(self, identity: int, outcome: str, **facts: Any) -> Intent:
        """Close the intent: promoted | rejected | failed | rolled back ... Idempotent for the same outcome.

        After "failed" its labels count for the next restill. The cooldown starts here.
        """
        with self.transaction() as connection:
            intent = self.intent(identity)
            if intent.outcome not in (None, outcome):
                raise StageError(f"intent {identity}: ended as {intent.outcome}, and cannot end as {outcome}")
            if intent.outcome is None:
                connection.execute(
                    "UPDATE intents SET outcome = ?, step = ?, facts = ?, finished = (SELECT max(number) FROM windows) "
                    "WHERE id = ?",
                    (outcome, outcome, json.dumps(intent.facts | facts), identity),
                )
        return self.intent(identity)
