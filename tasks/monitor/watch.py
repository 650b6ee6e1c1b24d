"""One window from end to end: its records are loaded, turned into signals, decided about and written down.

``cut`` and ``judge`` are what a scheduled flow calls: first every window that has closed is cut, then each is judged.
Both can be killed anywhere and called again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.store import Pointer, read_pointer
from tasks.monitor.closer import look_closer
from tasks.monitor.decide import Decide, Decision, History, Seen, decide
from tasks.monitor.evidence import kin, since_alarm
from tasks.monitor.health import health_signals, of_records
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import Held, stored_reference
from tasks.monitor.sample import of_feedback
from tasks.monitor.settings import Monitor
from tasks.monitor.signals import Signal, drift_signals
from tasks.monitor.state import Intent, State, Window
from tasks.monitor.windows import load
from tasks.stage import Paths, StageError

__all__ = ["Judgement", "Monitor", "cut", "judge", "measure"]


@dataclass(frozen=True)
class Judgement:
    """What came of one window."""

    window: Window
    signals: tuple[Signal, ...]
    decision: Decision
    intent: Intent | None


def cut(settings: Monitor, state: State, paths: Paths, now: datetime | None = None) -> list[Window]:
    """Cut the windows that have closed. ``now`` decides about those that time closes."""
    return state.cut(paths.journal, paths.feedback, settings.windows, now or datetime.now(UTC))


def judge(
    settings: Monitor, policy: Decide, state: State, paths: Paths, window: Window, now: datetime | None = None
) -> Judgement:
    """Measure ``window``, decide, write both down. A window that is judged already keeps its judgement.

    With a rollback goes the token of the pointer that was looked at: a pointer that has moved since is left alone. With a
    recalibration go the release that is to be recalibrated and the windows in which the mix has moved.
    """
    past = state.past(window.number, policy.memory)
    held, unknown = _reference(paths, window)
    signals = measure(settings, policy, state, paths, window, past, held)
    seen = Seen(window.number, window.id, window.plan.release, window.plan.rows, signals, unknown=unknown)
    pointer = read_pointer(paths.store)
    previous = previous_release(pointer, window.plan.release)
    serves = pointer is not None and pointer.champion == window.plan.release
    history = History(past, state.attempts(), state.labelled(window.number), previous, serves)
    decision = decide(seen, look_closer(settings, policy, state, paths, seen, history, held), policy)
    facts: dict[str, Any] = {}
    if pointer is not None and decision.action == "rollback":
        facts = {"champion": pointer.champion, "token": pointer.token}
    if decision.action == "recalibrate":
        facts = {"parent": seen.release, "windows": since_alarm([*kin(seen, past, policy), seen], policy)}
    intent = state.judge(window, signals, decision, now or datetime.now(UTC), **facts)
    return Judgement(window, signals, decision, intent)


def page_of(paths: Paths, number: int) -> Path:
    """Where the report of a window lies, or will lie."""
    return paths.monitor / "reports" / f"window-{number:06d}.html"


def _reference(paths: Paths, window: Window) -> tuple[Held | None, str | None]:
    """What the window is compared with, or why there is nothing."""
    try:
        return stored_reference(paths.store, window.plan.release), None
    except StageError as error:  # one window that cannot be compared must not keep the next ones from being judged
        return None, str(error)


def measure(
    settings: Monitor, policy: Decide, state: State, paths: Paths, window: Window, past: Sequence[Seen], held: Held | None
) -> tuple[Signal, ...]:
    """All signals of ``window``; of drift and quality also those of the newest windows merged.

    Windows that were blocked, were too small or belong to another release are not merged, nor is what lies before a
    window whose records are gone meanwhile. Without a reference (``held``) only health and trust are measured.
    """
    most = max(settings.signals.scales) - 1
    recent = [other.number for other in past[len(past) - min(most, len(past)) :]]
    mates = _mates(window, past, policy, most) if held is not None else []
    earlier = {number: _Loaded(paths, state.window(number)) for number in {*mates, *recent}}
    own = _Loaded(paths, window)
    first = max((position + 1 for position, number in enumerate(mates) if earlier[number].gone), default=0)
    before = [earlier[number].traffic for number in recent]
    if held is None:
        return tuple(health_signals(None, own.traffic, None, before, settings.limits))
    reference, parts = held.prepare(), [*(earlier[number] for number in mates[first:]), own]
    samples = [held.sample_of(part.journal) for part in parts]
    labelled = [of_feedback(part.feedback, window.plan.release, held.labels) for part in parts]
    return (
        *drift_signals(reference, samples, settings.signals),
        *quality_signals(reference, labelled, settings.signals),
        *health_signals(reference, own.traffic, samples[-1], before, settings.limits),
    )


def _mates(window: Window, past: Sequence[Seen], policy: Decide, most: int) -> list[int]:
    """Numbers of the newest ``most`` windows that may be merged with ``window``."""
    seen = Seen(window.number, window.id, window.plan.release, window.plan.rows, ())
    found = kin(seen, past, policy)
    return [other.number for other in found[len(found) - min(most, len(found)) :]]


class _Loaded:
    """The records of a window, as far as they are still there."""

    def __init__(self, paths: Paths, window: Window) -> None:
        self.journal = load(paths.journal, window.plan.journal)
        self.feedback = load(paths.feedback, window.plan.feedback)
        ranges = [*window.plan.journal.values(), *window.plan.feedback.values()]
        missing = sum(stop - start for start, stop in ranges) - len(self.journal) - len(self.feedback)
        self.traffic = of_records(self.journal, max(window.plan.lost, missing))
        self.gone = missing > window.plan.lost
        """Whether retention took records of it: more are missing than had been lost when it was cut."""


def previous_release(pointer: Pointer | None, judged: str) -> str | None:
    """What a rollback would bring back on evidence about the release ``judged``; None where there is nothing.

    Nothing is undone where another release serves by now, or where the champion itself came by a rollback.
    """
    if pointer is None or pointer.champion != judged or pointer.entry.get("action") == "rollback":
        return None
    return pointer.previous
