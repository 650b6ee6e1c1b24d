"""The monitor's main loop: cuts windows, loads their records, computes signals, decides and stores the result.

A scheduled flow calls ``cut`` and ``Watcher.judge_next``: first every closed window is cut, then all are judged, many in one
transaction. Both can be killed at any point and called again. A watcher caches what windows share: the reference, and the
records and decisions of earlier windows.
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
from tasks.monitor.decide import Decide, Decision, History, JudgedWindow, decide
from tasks.monitor.evidence import comparable_windows, windows_since_alarm
from tasks.monitor.followup import follow_up
from tasks.monitor.health import health_signals
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import ReferenceData, stored_reference
from tasks.monitor.settings import Monitor
from tasks.monitor.signals import Signal, drift_signals
from tasks.monitor.state import Intent, State, TrafficWindow
from tasks.monitor.window_records import WindowCache
from tasks.stage import Paths, StageError

__all__ = ["Judgement", "Monitor", "Watcher", "cut", "judge"]

AT_ONCE, SECONDS = 100, 2.0
"""Limits of one transaction: windows, and the time after which no further window is started, as other processes wait for it."""


@dataclass(frozen=True)
class Judgement:
    """The result for one window."""

    window: TrafficWindow
    signals: tuple[Signal, ...]
    decision: Decision
    intent: Intent | None


def cut(settings: Monitor, state: State, paths: Paths, now: datetime | None = None) -> list[TrafficWindow]:
    """Cut the windows that have closed by ``now``."""
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
        # The windows merged with the current one, and those just before it, which may differ.
        self._cache = WindowCache(paths, settings.windows.count, 2 * max(settings.signals.scales))
        self._past: deque[JudgedWindow] = deque(maxlen=policy.memory)
        self._references: dict[str, ReferenceData] = {}

    def judge_next(self, most: int = AT_ONCE, now: datetime | None = None) -> list[Judgement]:
        """Judge the oldest unjudged windows in one transaction, which is repeated as a whole if killed.

        An error in one window keeps the results of those before it; it is raised when that window is the first.
        """
        judgements: list[Judgement] = []
        deadline = time.monotonic() + SECONDS
        with self.state.transaction():
            for window in self.state.unjudged(most):
                if judgements and time.monotonic() > deadline:
                    break
                try:
                    judgements.append(self.judge(window, now))
                except Exception:  # of any type: the next call starts with this window
                    if not judgements:
                        raise
                    break
        return judgements

    def judge(self, window: TrafficWindow, now: datetime | None = None) -> Judgement:
        """Measure ``window``, decide, and store both. A window that is judged already keeps its judgement.

        A rollback intent stores the pointer's token: if the pointer has changed since, nothing is undone. A recalibration
        intent stores the release to recalibrate and the windows since the label shift.
        """
        with self.state.transaction():
            past = self._before(window.number)
            reference_data, no_reference = self._reference(window.plan.release)
            signals = self.measure(window, past, reference_data)
            measured = JudgedWindow(
                window.number, window.id, window.plan.release, window.plan.rows, signals, no_reference=no_reference
            )
            pointer = read_pointer(self.paths.store)
            previous = previous_release(pointer, window.plan.release)
            serves = pointer is not None and pointer.champion == window.plan.release
            history = History(past, self.state.attempts(), self.state.labelled(window.number), previous, serves)
            history = follow_up(self.settings, self.policy, self.state, self.paths, measured, history, reference_data)
            decision = decide(measured, history, self.policy)
            facts: dict[str, Any] = {}
            if pointer is not None and decision.action == "rollback":
                facts = {"champion": pointer.champion, "token": pointer.token}
            if decision.action == "recalibrate":
                facts = {
                    "parent": measured.release,
                    "windows": windows_since_alarm([*comparable_windows(measured, past, self.policy), measured], self.policy),
                }
            intent = self.state.judge(window, signals, decision, now or datetime.now(UTC), **facts)
        return Judgement(window, signals, decision, intent)

    def _before(self, number: int) -> tuple[JudgedWindow, ...]:
        """The judged windows that a decision about ``number`` uses; only those newer than the cached ones are read."""
        newest = self.state.newest(number)
        cached = self._past[-1].number if self._past else 0
        if cached != newest:
            count = min(newest - cached, self.policy.memory) if cached < newest else self.policy.memory
            newer = self.state.past(number, count)
            if cached > newest or len(newer) == self.policy.memory:
                self._past.clear()
            self._past.extend(newer)
        return tuple(self._past)

    def _reference(self, release: str) -> tuple[ReferenceData | None, str | None]:
        """(the reference of ``release`` or None, why there is none)."""
        if release not in self._references:
            try:
                self._references[release] = stored_reference(self.paths.store, release)
            except StageError as error:  # a window without a reference must not block the judging of later ones
                return None, str(error)
        return self._references[release], None

    def measure(
        self, window: TrafficWindow, past: Sequence[JudgedWindow], reference_data: ReferenceData | None
    ) -> tuple[Signal, ...]:
        """All signals of ``window``; drift and quality also on the newest windows merged.

        Windows that were blocked, are too small or belong to another release are not merged, nor are windows up to one whose
        records were deleted meanwhile. Without ``reference_data`` only health and trust are measured.
        """
        settings = self.settings
        most = max(settings.signals.scales) - 1
        recent = [other.number for other in past[len(past) - min(most, len(past)) :]]
        merged = _windows_to_merge(window, past, self.policy, most) if reference_data is not None else []
        earlier = {number: self._cache.load(number, self.state) for number in sorted({*merged, *recent})}
        current = self._cache.load(window.number, self.state)
        traffic = [earlier[number].traffic for number in recent]
        if reference_data is None:
            return tuple(health_signals(None, current.traffic, None, traffic, settings.limits))
        first = max((position + 1 for position, number in enumerate(merged) if earlier[number].incomplete), default=0)
        windows = [*(earlier[number] for number in merged[first:]), current]
        samples = [part.sample(reference_data) for part in windows]
        reference = reference_data.reference
        return (
            *drift_signals(reference, samples, settings.signals),
            *quality_signals(reference, [part.labelled(reference_data) for part in windows], settings.signals),
            *health_signals(reference, current.traffic, samples[-1], traffic, settings.limits),
        )


def page_of(paths: Paths, number: int) -> Path:
    """Path of the report of a window, whether or not it exists yet."""
    return paths.monitor / "reports" / f"window-{number:06d}.html"


def _windows_to_merge(window: TrafficWindow, past: Sequence[JudgedWindow], policy: Decide, most: int) -> list[int]:
    """Numbers of the newest ``most`` windows that may be merged with ``window``."""
    unmeasured = JudgedWindow(window.number, window.id, window.plan.release, window.plan.rows, ())
    comparable = comparable_windows(unmeasured, past, policy)
    return [other.number for other in comparable[len(comparable) - min(most, len(comparable)) :]]


def previous_release(pointer: Pointer | None, judged: str) -> str | None:
    """The release that a rollback would restore on evidence about the release ``judged``; None where there is none.

    Nothing is undone where another release serves by now, or where the champion itself came by a rollback.
    """
    if pointer is None or pointer.champion != judged or pointer.entry.get("action") == "rollback":
        return None
    return pointer.previous
