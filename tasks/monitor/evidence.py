"""What speaks for acting: alarms and their confirmation, broken limits, a promotion that made things worse. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.monitor.policy import Decide, History, Seen
from tasks.monitor.signals import Signal
from tasks.monitor.statistics import more


def kin(window: Seen, past: Sequence[Seen], policy: Decide) -> list[Seen]:
    """The past windows that ``window`` can be compared with: of its release, large enough, trusted."""
    return [
        other
        for other in past
        if other.number < window.number
        and other.release == window.release
        and other.rows >= policy.minimum
        and (other.decision is None or other.decision.action != "block")
    ]


def tested(window: Seen, policy: Decide) -> list[Signal]:
    """The signals that may raise an alarm: measured, tested, on enough messages or labels."""
    least = {"drift": policy.minimum, "quality": policy.minimum_labels}
    return [s for s in window.signals if s.p is not None and s.n >= least.get(s.kind, 1)]


def first_alarms(window: Seen, policy: Decide) -> frozenset[str]:
    """Signals below their part of the budget, which goes by their weights: what has moved, each with its direction."""
    signals = tested(window, policy)
    whole = sum(policy.weight(signal.name) for signal in signals)
    return frozenset(s.trend for s in signals if s.p is not None and s.p * whole < policy.weight(s.name) * policy.false_alarm)


def confirmed_drift(line: Sequence[Seen], policy: Decide) -> frozenset[str]:
    """Signals that confirm a first alarm of theirs. ``line``: windows of one release, the last is now.

    The confirming test looks at all windows since the alarm, no more and no less: so each alarm is tried few times, and
    the longer it takes, the more messages speak.
    """
    now = len(line) - 1
    found = set()
    for signal in tested(line[now], policy):
        if signal.p is None or signal.p >= policy.confirm:
            continue
        position = now - signal.windows
        if position >= 0 and signal.windows <= policy.confirm_within and signal.trend in _alarms_of(line[position], policy):
            found.add(signal.trend)
    return frozenset(found)


def _alarms_of(window: Seen, policy: Decide) -> Iterable[str]:
    return window.decision.alarms if window.decision is not None else first_alarms(window, policy)


def broken_limits(window: Seen) -> frozenset[str]:
    """Names of the trust and health signals that are over their limits."""
    return frozenset(
        s.name
        for s in window.signals
        if s.kind in ("trust", "health") and s.value is not None and s.reference is not None and s.value > s.reference
    )


def distrusted(window: Seen) -> list[Signal]:
    """The trust signals that are over their limits."""
    broken = broken_limits(window)
    return [signal for signal in window.signals if signal.kind == "trust" and signal.name in broken]


def lasting_limits(line: Sequence[Seen], policy: Decide) -> frozenset[str]:
    """Health limits broken now and in a window not long before: one slow window is no illness."""
    now = len(line) - 1
    health = {s.name for s in line[now].signals if s.kind == "health"}
    before: set[str] = set()
    for other in line[max(0, now - policy.confirm_within) : now]:
        before |= broken_limits(other)
    return broken_limits(line[now]) & before & health


def worse_than_before(line: Sequence[Seen], history: History, policy: Decide) -> tuple[str, ...]:
    """Reasons to undo the last promotion: more errors on confirmed labels, or limits broken that were not before it.

    What is not to be trusted says nothing here; what only failed does, and leaves few answers or none.
    """
    rule = policy.rollback
    heard = (o for o in history.past if o.rows >= policy.minimum or "errors" in broken_limits(o))
    past = [other for other in heard if other.number < line[-1].number and not distrusted(other)]
    release = line[-1].release
    first = next((i for i in range(len(past), 0, -1) if past[i - 1].release != release), 0)
    after, earlier = [*past[first:], line[-1]], past[:first]
    before = [other for other in earlier if other.release == earlier[-1].release][-rule.before :] if earlier else []
    if not before or len(after) > rule.within:
        return ()
    reasons = []
    (wrong, labels), (base_wrong, base_labels) = _errors(after), _errors(before)
    enough = labels >= rule.labels and base_labels >= rule.labels
    if enough and more(wrong, labels, base_wrong, base_labels) * rule.within < rule.level:
        reasons.append(f"{wrong} of {labels} answers were wrong, {base_wrong} of {base_labels} before the promotion")
    for name in ("errors", "latency_p99"):
        if sum(name in broken_limits(o) for o in after) >= 2 and not any(name in broken_limits(o) for o in before):
            reasons.append(f"{name} is over its limit since the promotion")
    return tuple(reasons)


def _errors(windows: Sequence[Seen]) -> tuple[int, int]:
    """Wrong answers and confirmed labels of these windows."""
    figures = [s for w in windows for s in w.signals if s.name == "realised_error" and s.windows == 1 and s.value is not None]
    return sum(round((s.value or 0.0) * s.n) for s in figures), sum(s.n for s in figures)
