"""What signals alone cannot tell, and is worked out from the records only where a decision hangs on it.

Of a suspected release: what the one before it says of the same labelled messages. Of drift beside a moved label mix: whether
the mix explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.monitor.evidence import beyond_mix, comparable_windows, confirmed_drift, distrusted, since_alarm, suspected
from tasks.monitor.explained import explained_by_mix
from tasks.monitor.loaded import draw
from tasks.monitor.paired import ask_previous
from tasks.monitor.policy import Decide, History, JudgedWindow
from tasks.monitor.records import Ranges, Reader, Record
from tasks.monitor.reference import Held
from tasks.monitor.settings import Monitor
from tasks.monitor.state import State
from tasks.stage import Paths


def records_of(folder: Path, windows: Sequence[Ranges]) -> list[Record]:
    """The records of these windows that are still there, window by window."""
    reader = Reader(folder)
    return [record for ranges in windows for _, record in reader.read(ranges)]


def sampled(folder: Path, windows: Sequence[Ranges], count: int) -> list[Record]:
    """Of each window the answers that its signals are measured on, ``count`` at most."""
    reader = Reader(folder)
    return [record for ranges in windows for record in draw(reader.read(ranges), count)[1]]


def look_closer(
    settings: Monitor, policy: Decide, state: State, paths: Paths, seen: JudgedWindow, history: History, held: Held | None
) -> History:
    """``history`` with what the decision about ``seen`` hangs on; unchanged, and at no cost, where it hangs on nothing more.

    ``held`` is the reference of its release, None where there is none.
    """
    if distrusted(seen):
        return history
    if history.previous is not None and (numbers := suspected(seen, history.past, policy)):
        feedback = records_of(paths.feedback, [state.window(number).plan.feedback for number in numbers])
        history = ask_previous(history, paths.store, seen.release, feedback)
    line = [*comparable_windows(seen, history.past, policy), seen]
    moved = confirmed_drift(line, policy)
    beyond = beyond_mix(moved)
    if held is None or not beyond or beyond == moved:
        return history
    windows = [state.window(number).plan.journal for number in since_alarm(line, policy)]
    sample = held.sample_of(sampled(paths.journal, windows, settings.windows.count))
    if len(sample) < policy.minimum:  # retention took the records
        return history
    explained = explained_by_mix(held.reference, sample, settings.signals, beyond, policy.confirm)
    return replace(history, explained=explained)
