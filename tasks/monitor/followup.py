"""Follow-up tests on the records of past windows, run only where a decision depends on them.

After a suspected promotion: a paired comparison with the previous release on the same labelled rows. For drift together
with label shift: whether the label shift explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.monitor.evidence import (
    broken_trust_limits,
    comparable_windows,
    confirmed_drift,
    unexplained_by_mix,
    windows_since_alarm,
    windows_to_compare,
)
from tasks.monitor.mix_adjustment import explained_by_mix
from tasks.monitor.paired import compare_with_previous
from tasks.monitor.policy import Decide, History, JudgedWindow
from tasks.monitor.records import Ranges, Reader, Record
from tasks.monitor.reference import ReferenceData
from tasks.monitor.settings import Monitor
from tasks.monitor.state import State
from tasks.monitor.window_records import draw
from tasks.stage import Paths


def records_of(folder: Path, windows: Sequence[Ranges]) -> list[Record]:
    """The records of these windows that still exist, window by window."""
    reader = Reader(folder)
    return [record for ranges in windows for _, record in reader.read(ranges)]


def sampled_answers(folder: Path, windows: Sequence[Ranges], count: int) -> list[Record]:
    """The answers of each window that its signals are measured on, at most ``count`` per window."""
    reader = Reader(folder)
    return [record for ranges in windows for record in draw(reader.read(ranges), count)[1]]


def follow_up(
    settings: Monitor,
    policy: Decide,
    state: State,
    paths: Paths,
    window: JudgedWindow,
    history: History,
    reference_data: ReferenceData | None,
) -> History:
    """``history`` with the test results that the decision about ``window`` depends on; unchanged where it needs none.

    ``reference_data`` belongs to the window's release; None where there is none.
    """
    if broken_trust_limits(window):
        return history
    if history.previous is not None and (numbers := windows_to_compare(window, history.past, policy)):
        feedback = records_of(paths.feedback, [state.window(number).plan.feedback for number in numbers])
        history = compare_with_previous(history, paths.store, window.release, feedback)
    timeline = [*comparable_windows(window, history.past, policy), window]
    confirmed = confirmed_drift(timeline, policy)
    unexplained = unexplained_by_mix(confirmed)
    if reference_data is None or not unexplained or unexplained == confirmed:
        return history
    ranges = [state.window(number).plan.journal for number in windows_since_alarm(timeline, policy)]
    sample = reference_data.sample_of(sampled_answers(paths.journal, ranges, settings.windows.count))
    if len(sample) < policy.minimum:  # retention deleted the records
        return history
    explained = explained_by_mix(reference_data.reference, sample, settings.signals, unexplained, policy.confirm)
    return replace(history, explained=explained)
