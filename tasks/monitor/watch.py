"""One window from end to end: its records are loaded, turned into signals, decided about and written down.

``cut`` and ``judge`` are what a scheduled flow calls: first every window that has closed is cut, then each is judged.
Both can be killed anywhere and called again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.store import read_pointer, release_folder
from tasks.monitor.decide import Decide, Decision, History, Seen, decide
from tasks.monitor.evidence import kin
from tasks.monitor.health import health_signals, of_records
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import load_reference
from tasks.monitor.sample import of_feedback
from tasks.monitor.settings import Monitor
from tasks.monitor.signals import Signal, drift_signals
from tasks.monitor.state import Intent, State, Window
from tasks.monitor.windows import load
from tasks.stage import Paths

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
    """Measure ``window``, decide, write both down. A window that is judged already keeps its judgement."""
    past = state.past(window.number, policy.memory)
    signals = measure(settings, policy, state, paths, window, past)
    seen = Seen(window.number, window.id, window.plan.release, window.plan.rows, signals)
    history = History(past, state.attempts(), state.labelled(window.number), previous_release(paths))
    decision = decide(seen, history, policy)
    intent = state.judge(window, signals, decision, now or datetime.now(UTC))
    return Judgement(window, signals, decision, intent)


def page_of(paths: Paths, number: int) -> Path:
    """Where the report of a window lies, or will lie."""
    return paths.monitor / "reports" / f"window-{number:06d}.html"


def measure(
    settings: Monitor, policy: Decide, state: State, paths: Paths, window: Window, past: Sequence[Seen]
) -> tuple[Signal, ...]:
    """All signals of ``window``; of drift and quality also those of the newest windows merged.

    Windows that were blocked, were too small or belong to another release are not merged, nor is what lies before a
    window whose records are gone meanwhile.
    """
    held = load_reference(release_folder(paths.store, window.plan.release))
    reference = held.prepare()
    most = max(settings.signals.scales) - 1
    mates, recent = _mates(window, past, policy, most), [other.number for other in past[len(past) - min(most, len(past)) :]]
    earlier = {number: _Loaded(paths, state.window(number)) for number in {*mates, *recent}}
    own = _Loaded(paths, window)
    first = max((position + 1 for position, number in enumerate(mates) if earlier[number].missing), default=0)
    parts = [*(earlier[number] for number in mates[first:]), own]
    samples = [held.sample_of(part.journal) for part in parts]
    labelled = [of_feedback(part.feedback, window.plan.release, held.labels) for part in parts]
    return (
        *drift_signals(reference, samples, settings.signals),
        *quality_signals(reference, labelled, settings.signals),
        *health_signals(
            reference,
            of_records(own.journal, max(window.plan.lost, own.missing)),
            samples[-1],
            [of_records(earlier[number].journal, 0) for number in recent],
            settings.limits,
        ),
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
        self.missing = sum(stop - start for start, stop in ranges) - len(self.journal) - len(self.feedback)


def previous_release(paths: Paths) -> str | None:
    """What a rollback would bring back; None where there is nothing, or where the champion itself came by a rollback."""
    pointer = read_pointer(paths.store)
    if pointer is None or pointer.entry.get("action") == "rollback":
        return None
    return pointer.previous
