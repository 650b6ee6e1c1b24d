"""What speaks for acting: alarms and their confirmation, broken limits, a promotion that made things worse. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tasks.monitor.policy import Decide, History, JudgedWindow, Paired
from tasks.monitor.signals import Signal
from tasks.monitor.statistics import more


def comparable_windows(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> list[JudgedWindow]:
    """The past windows that ``window`` can be compared with: of its release, large enough, trusted."""
    return [
        other
        for other in past
        if other.number < window.number
        and other.release == window.release
        and other.rows >= policy.minimum
        and (other.decision is None or other.decision.action != "block")
    ]


def tested(window: JudgedWindow, policy: Decide) -> list[Signal]:
    """The signals that may raise an alarm: measured, tested, on enough messages or labels."""
    least = {"drift": policy.minimum, "quality": policy.minimum_labels}
    return [s for s in window.signals if s.p is not None and s.n >= least.get(s.kind, 1)]


def first_alarms(window: JudgedWindow, policy: Decide) -> frozenset[str]:
    """Signals below their part of the budget, which goes by their weights: what has moved, each with its direction."""
    signals = tested(window, policy)
    whole = sum(policy.weight(signal.name) for signal in signals)
    return frozenset(s.trend for s in signals if s.p is not None and s.p * whole < policy.weight(s.name) * policy.false_alarm)


def confirmed_drift(line: Sequence[JudgedWindow], policy: Decide) -> frozenset[str]:
    """Signals that confirm a first alarm of theirs. ``line``: windows of one release, the last is now."""
    return frozenset(signal.trend for signal in _confirming(line, policy))


def _confirming(line: Sequence[JudgedWindow], policy: Decide) -> Iterator[Signal]:
    """The tests that do so: each looks at all windows since its alarm, no more and no less.

    So each alarm is tried few times, and the longer it takes, the more messages speak.
    """
    now = len(line) - 1
    for signal in tested(line[now], policy):
        if signal.p is None or signal.p >= policy.confirm:
            continue
        position = now - signal.windows
        if position >= 0 and signal.windows <= policy.confirm_within and signal.trend in _alarms_of(line[position], policy):
            yield signal


EXPLAINED = ("uncertain_share", "estimated_accuracy", "realised_error", "realised_precision")
"""Signals that move where the label mix does: how sure answers are, and how many of them are wrong, is other for each
label. Recall is of one label's own messages, and does not."""


def beyond_mix(trends: Iterable[str]) -> frozenset[str]:
    """What of these a shift of the label mix does not explain in any case; all of them where the mix is not among them."""
    moved = frozenset(trends)
    names = {trend: trend.split(" ")[0] for trend in moved}
    if "label_mix" not in names.values():
        return moved
    return frozenset(trend for trend, name in names.items() if name != "label_mix" and name not in EXPLAINED)


def since_alarm(line: Sequence[JudgedWindow], policy: Decide) -> tuple[int, ...]:
    """Numbers of the windows since the label mix raised the alarm that the last of ``line`` confirms, and of that one."""
    back = [signal.windows for signal in _confirming(line, policy) if signal.name == "label_mix"]
    return tuple(window.number for window in line[-1 - max(back, default=0) :])


def _alarms_of(window: JudgedWindow, policy: Decide) -> Iterable[str]:
    return window.decision.alarms if window.decision is not None else first_alarms(window, policy)


def broken_limits(window: JudgedWindow) -> frozenset[str]:
    """Names of the trust and health signals that are over their limits."""
    return frozenset(
        s.name
        for s in window.signals
        if s.kind in ("trust", "health") and s.value is not None and s.reference is not None and s.value > s.reference
    )


def distrusted(window: JudgedWindow) -> list[Signal]:
    """The trust signals that are over their limits."""
    broken = broken_limits(window)
    return [signal for signal in window.signals if signal.kind == "trust" and signal.name in broken]


def lasting_limits(line: Sequence[JudgedWindow], policy: Decide) -> frozenset[str]:
    """Health limits broken now and in a window not long before: one slow window is no illness."""
    now = len(line) - 1
    health = {s.name for s in line[now].signals if s.kind == "health"}
    before: set[str] = set()
    for other in line[max(0, now - policy.confirm_within) : now]:
        before |= broken_limits(other)
    return broken_limits(line[now]) & before & health


def since_promotion(
    window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide
) -> tuple[list[JudgedWindow], list[JudgedWindow]]:
    """(windows since the promotion of this window's release, the last ones of the release before it).

    Both are empty where there was no promotion, or none of late. What is not to be trusted says nothing here; what only
    failed does, and leaves few answers or none.
    """
    heard = (o for o in past if o.rows >= policy.minimum or "errors" in broken_limits(o))
    usable = [other for other in heard if other.number < window.number and not distrusted(other)]
    first = next((i for i in range(len(usable), 0, -1) if usable[i - 1].release != window.release), 0)
    after, earlier = [*usable[first:], window], usable[:first]
    if not earlier or len(after) > policy.rollback.within:
        return [], []
    return after, [other for other in earlier if other.release == earlier[-1].release][-policy.rollback.before :]


def more_errors(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> str | None:
    """Says that more confirmed labels contradict the answers since the promotion than before it; None where they do not.

    That is a suspicion: a world that moved looks the same. Which of the two it is, the release before has to say.
    """
    rule = policy.rollback
    after, before = since_promotion(window, past, policy)
    (wrong, labels), (base_wrong, base_labels) = _errors(after), _errors(before)
    if min(labels, base_labels) < rule.labels:
        return None
    if more(wrong, labels, base_wrong, base_labels) * rule.within >= rule.level:
        return None
    return f"{wrong} of {labels} answers were wrong, {base_wrong} of {base_labels} before the promotion"


def suspected(window: JudgedWindow, past: Sequence[JudgedWindow], policy: Decide) -> tuple[int, ...]:
    """Numbers of the windows about whose labelled messages the release before is to be asked; empty without a suspicion."""
    if distrusted(window) or more_errors(window, past, policy) is None:
        return ()
    return tuple(other.number for other in since_promotion(window, past, policy)[0])


def worse_than_before(window: JudgedWindow, history: History, policy: Decide) -> tuple[str, ...]:
    """Reasons to undo the last promotion: the release before has fewer errors on the same labelled messages, by a paired
    test; or limits are broken that were not before it.
    """
    rule, paired = policy.rollback, history.paired
    reasons = []
    suspicion = more_errors(window, history.past, policy)
    if suspicion and paired is not None and paired.p * rule.within < rule.level:
        reasons.append(f"{suspicion}; {_of_the_same(paired, history)}")
    after, before = since_promotion(window, history.past, policy)
    for name in ("errors", "latency_p99"):
        if sum(name in broken_limits(o) for o in after) >= 2 and not any(name in broken_limits(o) for o in before):
            reasons.append(f"{name} is over its limit since the promotion")
    return tuple(reasons)


def why_no_rollback(window: JudgedWindow, history: History, policy: Decide) -> str | None:
    """What is told where more answers are wrong than before the promotion, and it is not undone; None without a suspicion."""
    suspicion = more_errors(window, history.past, policy) if history.previous is not None else None
    if suspicion is None:
        return None
    if history.paired is None:
        return f"{suspicion}; release {history.previous} cannot be asked about the same messages: {history.unasked}"
    return f"{suspicion}; {_of_the_same(history.paired, history)}, which is not shown to be better: no rollback"


def _of_the_same(paired: Paired, history: History) -> str:
    return (
        f"of the same {paired.messages} messages this release has {paired.wrong} wrong, "
        f"release {history.previous} {paired.wrong_before}"
    )


def _errors(windows: Sequence[JudgedWindow]) -> tuple[int, int]:
    """Wrong answers and confirmed labels of these windows."""
    figures = [s for w in windows for s in w.signals if s.name == "realised_error" and s.windows == 1 and s.value is not None]
    return sum(round((s.value or 0.0) * s.n) for s in figures), sum(s.n for s in figures)
