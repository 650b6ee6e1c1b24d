"""What the monitor has done, in one SQLite file: windows, decisions, intents. Each exactly once, whatever dies.

Windows are *cut* in one transaction (their ranges and the cursors behind them) and *judged* in another (signals, decision
and, where one is due, the intent), many at once. A killed monitor begins again where the last whole transaction ended. Two
monitors at once take turns: every transaction locks before it reads.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.monitor.cutting import cut_some
from tasks.monitor.policy import Attempt, Decision, JudgedWindow
from tasks.monitor.signals import Signal
from tasks.monitor.stored import SCHEMA, Intent, TrafficWindow, read_seen, read_window
from tasks.monitor.traffic_windows import TrafficWindows
from tasks.stage import StageError

__all__ = ["Intent", "State", "TrafficWindow"]

INTENTS = ("recalibrate", "restill", "rollback")
"""Actions that are written down before they are taken."""
AT_ONCE = 100_000
"""Records that are cut at once: they are in memory together, and a monitor may have been away for days."""


class State:
    """Raises StageError where the file is no database of ours."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(SCHEMA)
            self._summed = 0, 0
        except sqlite3.DatabaseError as error:
            raise StageError(f"{path}: {error}; move it away to begin anew with all segments that are there") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is written within is written together, or not at all. Within another it is a part of that one."""
        part = self._base.in_transaction
        self._base.execute("SAVEPOINT part" if part else "BEGIN IMMEDIATE")
        try:
            yield self._base
            self._base.execute("RELEASE part" if part else "COMMIT")
        except BaseException:
            if self._base.in_transaction:  # a full disk has ended it already
                for undo in ("ROLLBACK TO part", "RELEASE part") if part else ("ROLLBACK",):
                    self._base.execute(undo)
            raise

    # Windows

    def cut(
        self, journal: Path, feedback: Path, settings: TrafficWindows, now: datetime, at_once: int = AT_ONCE
    ) -> list[TrafficWindow]:
        """Cut every window that closes by ``now``; those that are new. A long backlog takes several transactions."""
        windows: list[TrafficWindow] = []
        most = at_once
        while True:
            with self.transaction() as base:
                found, more = cut_some(base, journal, feedback, settings, now, most)
            windows += found
            if not more:
                return windows
            most = at_once if found else 2 * most  # so few do not fill a window

    def unjudged(self, most: int = -1) -> list[TrafficWindow]:
        """Windows that are cut and not judged, oldest first, at most so many. They are judged in their order."""
        rows = self._base.execute(
            "SELECT number, id, plan FROM windows WHERE number > (SELECT ifnull(max(window), 0) FROM decisions) "
            "ORDER BY number LIMIT ?",
            (most,),
        )
        return [read_window(row) for row in rows]

    def window(self, number: int) -> TrafficWindow:
        row = self._base.execute("SELECT number, id, plan FROM windows WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise StageError(f"window {number}: not in the monitor's state")
        return read_window(row)

    # Decisions

    def judge(
        self, window: TrafficWindow, signals: tuple[Signal, ...], decision: Decision, now: datetime, **facts: Any
    ) -> Intent | None:
        """Write down what was seen, what was decided and, where it is due, the intent with its ``facts``: all or nothing.

        The intent is the open one of that kind where there is one: a second restill is merged into the first. A
        window that is judged already stays as it is.
        """
        with self.transaction() as base:
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
                    json.dumps(vars(decision)),
                    json.dumps([vars(signal) for signal in signals]),
                    intent,
                    now.isoformat(),
                ),
            )
        return self.intent(intent) if intent is not None else None

    def ask(self, why: str, now: datetime) -> Intent:
        """A restill that a person wants: the open one where there is one, else a new one; ``why`` stands for its decision."""
        with self.transaction() as base:
            number = int(base.execute("SELECT total(n) FROM (SELECT max(number) AS n FROM windows)").fetchone()[0])
            intent = self._intend("restill", f"{now.isoformat()} by hand: {why}", number, now, {})
        return self.intent(intent)

    def _intend(self, kind: str, decision: str, number: int, now: datetime, facts: dict[str, Any]) -> int:
        """The open intent of this kind, else a new one as of window ``number``."""
        open_one = self._base.execute("SELECT id FROM intents WHERE outcome IS NULL AND kind = ?", (kind,)).fetchone()
        if open_one is not None:
            return int(open_one[0])
        done = self._base.execute(
            "INSERT INTO intents (kind, created, decision, window, step, facts, labels) VALUES (?, ?, ?, ?, 'open', ?, ?)",
            (kind, now.isoformat(), decision, number, json.dumps(facts), self._labels(number)),
        )
        return int(done.lastrowid or 0)

    def past(self, before: int, count: int) -> tuple[JudgedWindow, ...]:
        """The last ``count`` judged windows with a number below ``before``, oldest first."""
        rows = self._base.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number < ? ORDER BY number DESC LIMIT ?",
            (before, count),
        ).fetchall()
        return tuple(map(read_seen, reversed(rows)))

    def newest(self, before: int) -> int:
        """The number of the newest judged window below ``before``; 0 where there is none."""
        return int(self._base.execute("SELECT ifnull(max(window), 0) FROM decisions WHERE window < ?", (before,)).fetchone()[0])

    def unshown(self, effect: str, count: int) -> tuple[JudgedWindow, ...]:
        """What people should see and ``effect`` has not shown yet, oldest first: of the last ``count`` judged windows the
        newest, and those that are news."""
        rows = self._base.execute(
            "SELECT number, w.id, release, rows, signals, decision FROM windows w JOIN decisions d ON d.window = w.number "
            "WHERE number IN (SELECT window FROM decisions ORDER BY window DESC LIMIT ?) "
            "AND (json_extract(decision, '$.news') OR number = (SELECT max(window) FROM decisions)) "
            "AND number NOT IN (SELECT window FROM shown WHERE effect = ?) ORDER BY number",
            (count, effect),
        )
        return tuple(map(read_seen, rows))

    def show(self, effect: str, number: int) -> None:
        """Write down that ``effect`` has shown the window; again is no harm."""
        self._base.execute("INSERT OR IGNORE INTO shown VALUES (?, ?)", (number, effect))

    def labelled(self, number: int) -> int:
        """Feedback records of windows up to ``number`` that no snapshot holds yet: since the last restill that was tried."""
        (held,) = self._base.execute(
            "SELECT ifnull(max(labels), 0) FROM intents WHERE kind = 'restill' AND window < ? AND outcome IS NOT 'failed'",
            (number,),
        ).fetchone()
        return self._labels(number) - int(held)

    def _labels(self, number: int) -> int:
        """Feedback records of windows up to ``number``. A window stays as it was cut, and is not summed again."""
        upto, labels = self._summed if self._summed[0] <= number else (0, 0)
        more = self._base.execute("SELECT total(labels) FROM windows WHERE number > ? AND number <= ?", (upto, number))
        self._summed = number, labels + int(more.fetchone()[0])
        return self._summed[1]

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
        with self.transaction() as base:
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
        with self.transaction() as base:
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
