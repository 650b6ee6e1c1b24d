"""Evidence for a decision: first and confirmed alarms, broken limits, regressions after a promotion. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tasks.monitor.policy import Decide, History, JudgedWindow, Paired
from tasks.monitor.signals import Signal
from tasks.monitor.statistics import fisher_greater


def comparable_windows(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> list[JudgedWindow]:
    """The past windows that ``window`` can be compared with: same release, large enough, not blocked."""
    return [
        other
        for other in past
        if other.number < window.number
        and other.release == window.release
        and other.rows >= policy.minimum
        and (other.decision is None or other.decision.action != "block")
    ]


def tested_signals(window: JudgedWindow, policy: Decide) -> list[Signal]:
    """The signals that may raise an alarm: those with a p-value, on enough answers or labels."""
    minimum = {"drift": policy.minimum, "quality": policy.minimum_labels}
    return [s for s in window.signals if s.p is not None and s.n >= minimum.get(s.kind, 1)]


def first_alarms(window: JudgedWindow, policy: Decide) -> frozenset[str]:
    """Trends of the signals whose p-value is below their weighted share of the false-alarm budget."""
    signals = tested_signals(window, policy)
    total_weight = sum(policy.weight(signal.name) for signal in signals)
    return frozenset(
        s.trend for s in signals if s.p is not None and s.p * total_weight < policy.weight(s.name) * policy.false_alarm
    )


def confirmed_drift(timeline: Sequence[JudgedWindow], policy: Decide) -> frozenset[str]:
    """Trends whose first alarm is confirmed by the newest window. ``timeline``: windows of one release, the newest last."""
    return frozenset(signal.trend for signal in _confirming(timeline, policy))


def _confirming(timeline: Sequence[JudgedWindow], policy: Decide) -> Iterator[Signal]:
    """The confirming signals: each test covers exactly the windows since its alarm.

    So each alarm is tested few times, and later tests have larger samples.
    """
    now = len(timeline) - 1
    for signal in tested_signals(timeline[now], policy):
        if signal.p is None or signal.p >= policy.confirm:
            continue
        position = now - signal.windows
        if position >= 0 and signal.windows <= policy.confirm_within and signal.trend in _alarms_of(timeline[position], policy):
            yield signal


EXPLAINED = ("uncertain_share", "estimated_accuracy", "realised_error", "realised_precision")
"""Signals that move with the label mix, because confidence and error rate differ between labels. Recall is measured on one
label's rows and does not."""


def unexplained_by_mix(trends: Iterable[str]) -> frozenset[str]:
    """The trends that label shift does not explain by itself; all of them where the label mix is not among them."""
    confirmed = frozenset(trends)
    names = {trend: trend.split(" ")[0] for trend in confirmed}
    if "label_mix" not in names.values():
        return confirmed
    return frozenset(trend for trend, name in names.items() if name != "label_mix" and name not in EXPLAINED)


def windows_since_alarm(timeline: Sequence[JudgedWindow], policy: Decide) -> tuple[int, ...]:
    """Numbers of the windows from the label-mix alarm that the newest window confirms up to the newest one."""
    spans = [signal.windows for signal in _confirming(timeline, policy) if signal.name == "label_mix"]
    return tuple(window.number for window in timeline[-1 - max(spans, default=0) :])


def _alarms_of(window: JudgedWindow, policy: Decide) -> Iterable[str]:
    return window.decision.alarms if window.decision is not None else first_alarms(window, policy)


def broken_limits(window: JudgedWindow) -> frozenset[str]:
    """Names of the trust and health signals that are over their limits."""
    return frozenset(
        s.name
        for s in window.signals
        if s.kind in ("trust", "health") and s.value is not None and s.reference is not None and s.value > s.reference
    )


def broken_trust_limits(window: JudgedWindow) -> list[Signal]:
    """The trust signals that are over their limits."""
    broken = broken_limits(window)
    return [signal for signal in window.signals if signal.kind == "trust" and signal.name in broken]


def persistent_limits(timeline: Sequence[JudgedWindow], policy: Decide) -> frozenset[str]:
    """Health limits broken in the newest window and in a recent one: a single slow window does not count."""
    now = len(timeline) - 1
    health = {s.name for s in timeline[now].signals if s.kind == "health"}
    broken_before: set[str] = set()
    for other in timeline[max(0, now - policy.confirm_within) : now]:
        broken_before |= broken_limits(other)
    return broken_limits(timeline[now]) & broken_before & health


def windows_around_promotion(
    window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide
) -> tuple[list[JudgedWindow], list[JudgedWindow]]:
    """(windows since the promotion of this window's release, the last windows of the release before it).

    Both are empty where there was no recent promotion. Windows that broke a trust limit are excluded; those with failures
    only are not, although they hold few answers or none.
    """
    relevant = (o for o in past if o.rows >= policy.minimum or "errors" in broken_limits(o))
    usable = [other for other in relevant if other.number < window.number and not broken_trust_limits(other)]
    first = next((i for i in range(len(usable), 0, -1) if usable[i - 1].release != window.release), 0)
    after, earlier = [*usable[first:], window], usable[:first]
    if not earlier or len(after) > policy.rollback.within:
        return [], []
    return after, [other for other in earlier if other.release == earlier[-1].release][-policy.rollback.before :]


def more_errors(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> str | None:
    """A sentence where the error rate on confirmed labels is significantly higher since the promotion; None otherwise.

    Drift looks the same, so this is only a suspicion: a paired comparison with the previous release has to decide.
    """
    rule = policy.rollback
    after, before = windows_around_promotion(window, past, policy)
    (wrong, labels), (base_wrong, base_labels) = _errors(after), _errors(before)
    if min(labels, base_labels) < rule.labels:
        return None
    if fisher_greater(wrong, labels, base_wrong, base_labels) * rule.within >= rule.level:
        return None
    return f"{wrong} of {labels} answers were wrong, {base_wrong} of {base_labels} before the promotion"


def windows_to_compare(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> tuple[int, ...]:
    """Numbers of the windows whose labelled rows go into the paired comparison; empty without a suspicion."""
    if broken_trust_limits(window) or more_errors(window, past, policy) is None:
        return ()
    return tuple(other.number for other in windows_around_promotion(window, past, policy)[0])


def worse_than_before(window: JudgedWindow, history: History, policy: Decide) -> tuple[str, ...]:
    """Reasons to undo the last promotion: the previous release has significantly fewer errors on the same labelled rows
    (McNemar's exact test), or limits are broken that were not broken before.
    """
    rule, paired = policy.rollback, history.paired
    reasons = []
    suspicion = more_errors(window, history.past, policy)
    if suspicion and paired is not None and paired.p * rule.within < rule.level:
        reasons.append(f"{suspicion}; {_describe_pair(paired, history)}")
    after, before = windows_around_promotion(window, history.past, policy)
    for name in ("errors", "latency_p99"):
        if sum(name in broken_limits(o) for o in after) >= 2 and not any(name in broken_limits(o) for o in before):
            reasons.append(f"{name} is over its limit since the promotion")
    return tuple(reasons)


def why_no_rollback(window: JudgedWindow, history: History, policy: Decide) -> str | None:
    """Why a promotion with more errors than before it is not undone; None without a suspicion."""
    suspicion = more_errors(window, history.past, policy) if history.previous is not None else None
    if suspicion is None:
        return None
    if history.paired is None:
        return f"{suspicion}; release {history.previous} cannot be asked about the same inputs: {history.not_compared}"
    return f"{suspicion}; {_describe_pair(history.paired, history)}, which is not shown to be better: no rollback"


def _describe_pair(paired: Paired, history: History) -> str:
    return (
        f"of the same {paired.rows} rows this release has {paired.wrong} wrong, "
        f"release {history.previous} {paired.wrong_before}"
    )


def _errors(windows: Sequence[JudgedWindow]) -> tuple[int, int]:
    """(wrong answers, confirmed labels) of these windows."""
    errors = [s for w in windows for s in w.signals if s.name == "realised_error" and s.windows == 1 and s.value is not None]
    return sum(round((s.value or 0.0) * s.n) for s in errors), sum(s.n for s in errors)
