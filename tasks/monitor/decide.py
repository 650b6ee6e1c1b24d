"""The decision about a window: a pure function of its signals and the history, returning an action and its reasons.

    none          nothing, or nothing yet: a first alarm waits for a second one
    investigate   a person should look; reported once per episode
    recalibrate   label shift only: new decision parameters for the same model
    restill       drift beyond label shift: retrain on all labels so far
    rollback      the current release is worse than the previous one on the same rows
    block         this window's data cannot be trusted: they are excluded from this and all later decisions

The false-alarm rate of all tests of a window together is bounded: each signal at each scale gets a share of the budget
``false_alarm`` by its weight (weighted Bonferroni). A p-value below its share is a *first alarm*; it is *confirmed* by the same
signal in the same direction, at the looser level ``confirm``, on the windows since, which share no answer with it. Time is
counted in windows, so a replay makes the same decisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.monitor.evidence import (
    broken_limits,
    broken_trust_limits,
    comparable_windows,
    confirmed_drift,
    first_alarms,
    persistent_limits,
    unexplained_by_mix,
    why_no_rollback,
    worse_than_before,
)
from tasks.monitor.policy import Action, Attempt, Decide, Decision, History, JudgedWindow
from tasks.monitor.signals import Signal

__all__ = ["Attempt", "Decide", "Decision", "History", "JudgedWindow", "decide", "decision_id"]

NO_REFERENCE = "no reference"
"""Confirmed key of a window whose release has no reference to compare it with."""
NO_ROLLBACK = "no rollback"
"""Confirmed key where the previous release cannot be run, so drift cannot be told from a bad release."""


def decision_id(window: str) -> str:
    return hashlib.sha256(f"decision {window}".encode()).hexdigest()[:16]


def decide(window: JudgedWindow, history: History, policy: Decide) -> Decision:
    """The action for ``window``. A window that has a decision already keeps it."""
    identity = decision_id(window.id)
    for past in history.past:
        if past.decision is not None and past.decision.id == identity:
            return past.decision
    timeline = [*comparable_windows(window, history.past, policy), window]
    alarms = first_alarms(window, policy)
    broken = broken_limits(window)
    confirmed = confirmed_drift(timeline, policy) | persistent_limits(timeline, policy)
    confirmed |= {NO_REFERENCE} if window.no_reference is not None else frozenset()
    no_rollback = why_no_rollback(window, history, policy)
    confirmed |= {NO_ROLLBACK} if no_rollback and history.paired is None else frozenset()
    action, reasons = _act(window, confirmed, broken, history, policy)
    reported = _reported(history.past, window.release, policy)
    news = action in ("recalibrate", "restill", "rollback") or bool((broken if action == "block" else confirmed) - reported)
    if action == "investigate" and not news:
        action, reasons = "none", ("goes on, and was told: " + ", ".join(sorted(confirmed)),)
    if action == "none" and not reasons:
        reasons = tuple(f"first alarm of {key}: waits for a later window to confirm it" for key in sorted(alarms))
    if no_rollback and action not in ("rollback", "block"):
        reasons = (*reasons, no_rollback)
    keys = tuple(sorted(alarms)), tuple(sorted(confirmed)), tuple(sorted(broken))
    return Decision(identity, action, reasons, *keys, news)


def _act(
    window: JudgedWindow, confirmed: frozenset[str], broken: frozenset[str], history: History, policy: Decide
) -> tuple[Action, tuple[str, ...]]:
    """The most severe action that is due; less severe ones are not checked."""
    if untrusted := tuple(_over(signal) for signal in broken_trust_limits(window)):
        return "block", untrusted
    regressions = worse_than_before(window, history, policy)
    if regressions and history.previous is not None:
        return "rollback", (*regressions, f"back to release {history.previous}")
    failing = tuple(_over(s) for s in window.signals if s.name == "errors" and s.name in broken)
    if window.no_reference is not None:
        return "investigate", (window.no_reference, *failing)
    if failing:
        return "block", failing
    drifted = tuple(key for key in sorted(confirmed) if key in {s.trend for s in window.signals if s.p is not None})
    if not drifted:
        return (
            ("investigate", tuple(f"{key}: over its limit again" for key in sorted(confirmed - {NO_ROLLBACK})))
            if confirmed
            else ("none", ())
        )
    return _respond_to_drift(window.number, drifted, history, policy)


def _respond_to_drift(number: int, drifted: Sequence[str], history: History, policy: Decide) -> tuple[Action, tuple[str, ...]]:
    """The cheapest action that can correct the confirmed drift ``drifted`` and may start."""
    explanation = ", explained by the label mix"
    reasons = tuple(f"{key}: confirmed on a later window{explanation if key in history.explained else ''}" for key in drifted)
    if not unexplained_by_mix(drifted) - history.explained:
        obstacles = recalibration_blockers(number, history, policy)
        if not obstacles:
            return "recalibrate", reasons
        reasons += tuple(f"no recalibration: {why}" for why in obstacles)
    obstacles = blockers(number, history, policy)
    return ("investigate", (*reasons, *obstacles)) if obstacles else ("restill", reasons)


def _over(signal: Signal) -> str:
    return f"{signal.name} {signal.value:.4g} is over its limit {signal.reference:.4g}"


def _reported(past: Sequence[JudgedWindow], release: str, policy: Decide) -> frozenset[str]:
    """Keys already reported to people: confirmed, or the cause of a block, in the last windows of this release."""
    keys: set[str] = set()
    for other in [other for other in past if other.release == release][-policy.confirm_within :]:
        if other.decision is not None:
            keys |= {*other.decision.confirmed, *(other.decision.broken if other.decision.action == "block" else ())}
    return frozenset(keys)


def recalibration_blockers(number: int, history: History, policy: Decide) -> tuple[str, ...]:
    """Why no recalibration may start in window ``number``; empty where one may.

    A recalibration within the cooldown, however it ended, has not corrected the label shift, and another would not.
    """
    reasons = [] if history.serves else ["the release is not the champion any more"]
    cooldown_end = _cooldown_end([a for a in history.attempts if a.kind == "recalibrate"], policy)
    if cooldown_end is not None and cooldown_end >= number:
        reasons.append(f"there was one, and its cooldown lasts until window {cooldown_end}")
    if history.labelled < policy.recalibrate.floor:
        reasons.append(
            f"{history.labelled} labelled rows since the last snapshot; its floor is {policy.recalibrate.floor}",
        )
    if any(a.outcome is None for a in history.attempts):
        reasons.append("an intent is open")
    return tuple(reasons)


def _cooldown_end(attempts: Sequence[Attempt], policy: Decide) -> int | None:
    """The last window of the cooldown after these attempts; None where there are none."""
    return max(((a.started if a.finished is None else a.finished) + policy.cooldown for a in attempts), default=None)


def blockers(number: int, history: History, policy: Decide) -> tuple[str, ...]:
    """Why no restill may start in window ``number``; empty where one may."""
    restills = [attempt for attempt in history.attempts if attempt.kind == "restill"]
    reasons = []
    cooldown_end = _cooldown_end(restills, policy)
    if cooldown_end is not None and cooldown_end >= number:
        reasons.append(f"cooldown until window {cooldown_end}")
    if history.labelled < policy.floor:
        reasons.append(f"{history.labelled} labelled rows since the last snapshot; the floor is {policy.floor}")
    recent = [a for a in restills if a.started > number - policy.budget.windows]
    if len(recent) >= policy.budget.restills:
        reasons.append(f"{len(recent)} restills in the last {policy.budget.windows} windows: the budget is spent")
    for kind, name in (("rollback", "rollback"), ("recalibrate", "recalibration")):
        if any(a.kind == kind and a.outcome is None for a in history.attempts):
            reasons.append(f"a {name} is not finished")
    return tuple(reasons)
