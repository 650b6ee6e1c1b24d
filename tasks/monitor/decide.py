"""What to do about a window: signals and history in, an action and its reasons out. A pure function.

    none          nothing, or nothing yet: a first alarm waits for a second one
    investigate   a person should look; said once an episode
    recalibrate   labels occur in another mix, and that is all: other decision parameters for the same model
    restill       the world has moved: train again on what is labelled by now
    rollback      the release of late is worse than the one before it on the same messages
    block         this window's data are not to be trusted: nothing is decided by them, now or later

The false alarms of all tests of a window together are bounded: each signal at each scale gets a part of ``false_alarm``
by its weight (Bonferroni). A test below its part is a *first alarm*; it is *confirmed* by the same signal in the same
direction, at the looser ``confirm``, on the windows since, which share no message with it. Time is counted in windows,
so a replay decides alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.monitor.evidence import (
    beyond_mix,
    broken_limits,
    comparable_windows,
    confirmed_drift,
    distrusted,
    first_alarms,
    lasting_limits,
    why_no_rollback,
    worse_than_before,
)
from tasks.monitor.policy import Action, Attempt, Decide, Decision, History, JudgedWindow
from tasks.monitor.signals import Signal

__all__ = ["Attempt", "Decide", "Decision", "History", "JudgedWindow", "decide", "decision_id"]

UNKNOWN = "no reference"
"""What a window is confirmed for that cannot be compared with its release."""
UNASKED = "no rollback"
"""What it is confirmed for where the release before cannot be asked, and so nothing tells drift from a bad release."""


def decision_id(window: str) -> str:
    return hashlib.sha256(f"decision {window}".encode()).hexdigest()[:16]


def decide(window: JudgedWindow, history: History, policy: Decide) -> Decision:
    """The action for ``window``. A window that was decided before gets that decision again."""
    identity = decision_id(window.id)
    for past in history.past:
        if past.decision is not None and past.decision.id == identity:
            return past.decision
    line = [*comparable_windows(window, history.past, policy), window]
    alarms = first_alarms(window, policy)
    broken = broken_limits(window)
    confirmed = confirmed_drift(line, policy) | lasting_limits(line, policy)
    confirmed |= {UNKNOWN} if window.unknown is not None else frozenset()
    kept = why_no_rollback(window, history, policy)
    confirmed |= {UNASKED} if kept and history.paired is None else frozenset()
    action, reasons = _act(window, confirmed, broken, history, policy)
    known = _told(history.past, window.release, policy)
    news = action in ("recalibrate", "restill", "rollback") or bool((broken if action == "block" else confirmed) - known)
    if action == "investigate" and not news:
        action, reasons = "none", ("goes on, and was told: " + ", ".join(sorted(confirmed)),)
    if action == "none" and not reasons:
        reasons = tuple(f"first alarm of {key}: waits for a later window to confirm it" for key in sorted(alarms))
    if kept and action not in ("rollback", "block"):
        reasons = (*reasons, kept)
    told = tuple(sorted(alarms)), tuple(sorted(confirmed)), tuple(sorted(broken))
    return Decision(identity, action, reasons, *told, news)


def _act(
    window: JudgedWindow, confirmed: frozenset[str], broken: frozenset[str], history: History, policy: Decide
) -> tuple[Action, tuple[str, ...]]:
    """The gravest action that is due; what follows is not asked."""
    if distrust := tuple(_over(signal) for signal in distrusted(window)):
        return "block", distrust
    worse = worse_than_before(window, history, policy)
    if worse and history.previous is not None:
        return "rollback", (*worse, f"back to release {history.previous}")
    failing = tuple(_over(s) for s in window.signals if s.name == "errors" and s.name in broken)
    if window.unknown is not None:
        return "investigate", (window.unknown, *failing)
    if failing:
        return "block", failing
    moved = tuple(key for key in sorted(confirmed) if key in {s.trend for s in window.signals if s.p is not None})
    if not moved:
        return (
            ("investigate", tuple(f"{key}: over its limit again" for key in sorted(confirmed - {UNASKED})))
            if confirmed
            else ("none", ())
        )
    return _answer(window.number, moved, history, policy)


def _answer(number: int, moved: Sequence[str], history: History, policy: Decide) -> tuple[Action, tuple[str, ...]]:
    """What is done about the confirmed drift ``moved``: the least that can mend it, and may start."""
    because = ", explained by the label mix"
    reasons = tuple(f"{key}: confirmed on a later window{because if key in history.explained else ''}" for key in moved)
    if not beyond_mix(moved) - history.explained:
        spared = no_recalibration(number, history, policy)
        if not spared:
            return "recalibrate", reasons
        reasons += tuple(f"no recalibration: {why}" for why in spared)
    against = blockers(number, history, policy)
    return ("investigate", (*reasons, *against)) if against else ("restill", reasons)


def _over(signal: Signal) -> str:
    return f"{signal.name} {signal.value:.4g} is over its limit {signal.reference:.4g}"


def _told(past: Sequence[JudgedWindow], release: str, policy: Decide) -> frozenset[str]:
    """What people know already: what was confirmed, or blocked for, in the last windows of this release."""
    keys: set[str] = set()
    for other in [other for other in past if other.release == release][-policy.confirm_within :]:
        if other.decision is not None:
            keys |= {*other.decision.confirmed, *(other.decision.broken if other.decision.action == "block" else ())}
    return frozenset(keys)


def no_recalibration(number: int, history: History, policy: Decide) -> tuple[str, ...]:
    """Why the label mix alone is left to a restill in window ``number``; empty where a recalibration may start.

    One that was promoted, refused or failed within the cooldown has not mended it, and another would not.
    """
    found = [] if history.serves else ["the release is not the champion any more"]
    last = _quiet_until([a for a in history.attempts if a.kind == "recalibrate"], policy)
    if last is not None and last >= number:
        found.append(f"there was one, and its cooldown lasts until window {last}")
    if history.labelled < policy.recalibrate.floor:
        found.append(
            f"{history.labelled} labelled rows since the last snapshot; its floor is {policy.recalibrate.floor}",
        )
    if any(a.outcome is None for a in history.attempts):
        found.append("an intent is open")
    return tuple(found)


def _quiet_until(attempts: Sequence[Attempt], policy: Decide) -> int | None:
    """The last window of the cooldown after any of these; None where there are none."""
    return max(((a.started if a.finished is None else a.finished) + policy.cooldown for a in attempts), default=None)


def blockers(number: int, history: History, policy: Decide) -> tuple[str, ...]:
    """Why no restill may start in window ``number``; empty where one may."""
    restills = [attempt for attempt in history.attempts if attempt.kind == "restill"]
    found = []
    quiet = _quiet_until(restills, policy)
    if quiet is not None and quiet >= number:
        found.append(f"cooldown until window {quiet}")
    if history.labelled < policy.floor:
        found.append(f"{history.labelled} labelled rows since the last snapshot; the floor is {policy.floor}")
    recent = [a for a in restills if a.started > number - policy.budget.windows]
    if len(recent) >= policy.budget.restills:
        found.append(f"{len(recent)} restills in the last {policy.budget.windows} windows: the budget is spent")
    for kind, what in (("rollback", "rollback"), ("recalibrate", "recalibration")):
        if any(a.kind == kind and a.outcome is None for a in history.attempts):
            found.append(f"a {what} is not finished")
    return tuple(found)
