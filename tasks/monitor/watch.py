"""Windows from end to end: their records are loaded, turned into signals, decided about and written down.

``cut`` and ``Watcher.judge_next`` are what a scheduled flow calls: first every window that has closed is cut, then all are
judged, many in one transaction. Both can be killed anywhere and called again. What windows share (the reference, the
records and decisions before them) is kept while a watcher lives.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.store import Pointer, read_pointer
from tasks.monitor.closer import look_closer
from tasks.monitor.decide import Decide, Decision, History, JudgedWindow, decide
from tasks.monitor.evidence import comparable_windows, since_alarm
from tasks.monitor.health import health_signals
from tasks.monitor.loaded import Recent
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import Held, stored_reference
from tasks.monitor.settings import Monitor
from tasks.monitor.signals import Signal, drift_signals
from tasks.monitor.state import Intent, State, TrafficWindow
from tasks.stage import Paths, StageError

__all__ = ["Judgement", "Monitor", "Watcher", "cut", "judge"]

AT_ONCE, SECONDS = 100, 2.0
"""Windows that are judged in one transaction at most, and how long another is begun in it: others wait for its end."""


@dataclass(frozen=True)
class Judgement:
    """What came of one window."""

    window: TrafficWindow
    signals: tuple[Signal, ...]
    decision: Decision
    intent: Intent | None


def cut(settings: Monitor, state: State, paths: Paths, now: datetime | None = None) -> list[TrafficWindow]:
    """Cut the windows that have closed. ``now`` decides about those that time closes."""
    return state.cut(paths.journal, paths.feedback, settings.windows, now or datetime.now(UTC))


def judge(
    settings: Monitor, policy: Decide, state: State, paths: Paths, window: TrafficWindow, now: datetime | None = None
) -> Judgement:
    """Judge one window."""
    return Watcher(settings, policy, state, paths).judge(window, now)


class Watcher:
    """Judges windows one after the other."""

    def __init__(self, settings: Monitor, policy: Decide, state: State, paths: Paths) -> None:
        self.settings, self.policy, self.state, self.paths = settings, policy, state, paths
        # Those that a window is merged with, and those just before it, which may be others.
        self._recent = Recent(paths, settings.windows.count, 2 * max(settings.signals.scales))
        self._past: deque[JudgedWindow] = deque(maxlen=policy.memory)
        self._held: dict[str, Held] = {}

    def judge_next(self, most: int = AT_ONCE, now: datetime | None = None) -> list[Judgement]:
        """Judge the oldest windows that are not judged, in one transaction: killed in its midst, all of it is done again.

        An error in one window does not undo those before it; it is raised when that window is the first.
        """
        done: list[Judgement] = []
        until = time.monotonic() + SECONDS
        with self.state.transaction():
            for window in self.state.unjudged(most):
                if done and time.monotonic() > until:
                    break
                try:
                    done.append(self.judge(window, now))
                except Exception:  # of whatever kind: the next call begins with this window
                    if not done:
                        raise
                    break
        return done

    def judge(self, window: TrafficWindow, now: datetime | None = None) -> Judgement:
        """Measure ``window``, decide, write both down. A window that is judged already keeps its judgement.

        With a rollback goes the token of the pointer that was looked at: a pointer that has moved since is left alone.
        With a recalibration go the release that is to be recalibrated and the windows in which the mix has moved.
        """
        with self.state.transaction():
            past = self._before(window.number)
            held, unknown = self._reference(window.plan.release)
            signals = self.measure(window, past, held)
            seen = JudgedWindow(window.number, window.id, window.plan.release, window.plan.rows, signals, unknown=unknown)
            pointer = read_pointer(self.paths.store)
            previous = previous_release(pointer, window.plan.release)
            serves = pointer is not None and pointer.champion == window.plan.release
            history = History(past, self.state.attempts(), self.state.labelled(window.number), previous, serves)
            closer = look_closer(self.settings, self.policy, self.state, self.paths, seen, history, held)
            decision = decide(seen, closer, self.policy)
            facts: dict[str, Any] = {}
            if pointer is not None and decision.action == "rollback":
                facts = {"champion": pointer.champion, "token": pointer.token}
            if decision.action == "recalibrate":
                facts = {
                    "parent": seen.release,
                    "windows": since_alarm([*comparable_windows(seen, past, self.policy), seen], self.policy),
                }
            intent = self.state.judge(window, signals, decision, now or datetime.now(UTC), **facts)
        return Judgement(window, signals, decision, intent)

    def _before(self, number: int) -> tuple[JudgedWindow, ...]:
        """The judged windows that a decision about ``number`` looks at; of those that are known, only the newer are read."""
        newest = self.state.newest(number)
        known = self._past[-1].number if self._past else 0
        if known != newest:
            newer = self.state.past(number, min(newest - known, self.policy.memory) if known < newest else self.policy.memory)
            if known > newest or len(newer) == self.policy.memory:
                self._past.clear()
            self._past.extend(newer)
        return tuple(self._past)

    def _reference(self, release: str) -> tuple[Held | None, str | None]:
        """What windows of ``release`` are compared with, or why there is nothing."""
        if release not in self._held:
            try:
                self._held[release] = stored_reference(self.paths.store, release)
            except StageError as error:  # one window that cannot be compared must not keep the next ones from being judged
                return None, str(error)
        return self._held[release], None

    def measure(self, window: TrafficWindow, past: Sequence[JudgedWindow], held: Held | None) -> tuple[Signal, ...]:
        """All signals of ``window``; of drift and quality also those of the newest windows merged.

        Windows that were blocked, were too small or belong to another release are not merged, nor is what lies before a
        window whose records are gone meanwhile. Without a reference (``held``) only health and trust are measured.
        """
        settings = self.settings
        most = max(settings.signals.scales) - 1
        recent = [other.number for other in past[len(past) - min(most, len(past)) :]]
        mates = _mates(window, past, self.policy, most) if held is not None else []
        earlier = {number: self._recent.load(number, self.state) for number in sorted({*mates, *recent})}
        own = self._recent.load(window.number, self.state)
        before = [earlier[number].traffic for number in recent]
        if held is None:
            return tuple(health_signals(None, own.traffic, None, before, settings.limits))
        first = max((position + 1 for position, number in enumerate(mates) if earlier[number].gone), default=0)
        parts = [*(earlier[number] for number in mates[first:]), own]
        samples = [part.sample(held) for part in parts]
        return (
            *drift_signals(held.reference, samples, settings.signals),
            *quality_signals(held.reference, [part.labelled(held) for part in parts], settings.signals),
            *health_signals(held.reference, own.traffic, samples[-1], before, settings.limits),
        )


def page_of(paths: Paths, number: int) -> Path:
    """Where the report of a window lies, or will lie."""
    return paths.monitor / "reports" / f"window-{number:06d}.html"


def _mates(window: TrafficWindow, past: Sequence[JudgedWindow], policy: Decide, most: int) -> list[int]:
    """Numbers of the newest ``most`` windows that may be merged with ``window``."""
    seen = JudgedWindow(window.number, window.id, window.plan.release, window.plan.rows, ())
    found = comparable_windows(seen, past, policy)
    return [other.number for other in found[len(found) - min(most, len(found)) :]]


def previous_release(pointer: Pointer | None, judged: str) -> str | None:
    """What a rollback would bring back on evidence about the release ``judged``; None where there is nothing.

    Nothing is undone where another release serves by now, or where the champion itself came by a rollback.
    """
    if pointer is None or pointer.champion != judged or pointer.entry.get("action") == "rollback":
        return None
    return pointer.previous
