"""tasks/monitor/decide.py: the policy by table and by property."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.monitor.decide import Attempt, Decide, Decision, History, JudgedWindow, decide
from tasks.monitor.evidence import windows_since_alarm, windows_to_compare, worse_than_before
from tasks.monitor.policy import Paired
from tasks.monitor.settings import read_monitor
from tasks.monitor.signals import Signal
from tasks.stage import StageError
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
POLICY = Decide.model_validate(
    PARAMS["decide"]
    | {
        "false_alarm": 0.004,
        "confirm": 0.01,
        "weights": {"label_mix": 1},
        "confirm_within": 8,
        "minimum": 50,
        "minimum_labels": 20,
        "cooldown": 6,
        "floor": 50,
        "recalibrate": {"floor": 30},
        "budget": {"restills": 2, "windows": 40},
        "rollback": {"within": 8, "before": 8, "labels": 50, "level": 0.01},
    }
)
CALM, ALARM, LOOSE = 0.5, 1e-9, 0.005
"""p of nothing, of a first alarm, of a confirmation."""


def drift(p: float, *, direction: str = "up", scale: int = 1, n: int = 125, name: str = "joint") -> Signal:
    return Signal(name, "drift", 0.5, 0.4, 0.6, 0.4, p, direction, n, scale)


def limit(name: str, value: float, bound: float, kind: Any = "health") -> Signal:
    return Signal(name, kind, value, None, None, bound, None, "up", 125)


def error(wrong: int, labels: int) -> Signal:
    return Signal("realised_error", "quality", wrong / labels, 0.0, 1.0, 0.02, None, "up", labels)


def play(
    steps: list[tuple[Signal, ...]],
    *,
    releases: list[str] | None = None,
    attempts: tuple[Attempt, ...] = (),
    labelled: int = 1000,
    previous: str | None = None,
    rows: int = 125,
    **told: Any,
) -> list[Decision]:
    """The decisions about windows 1, 2, .. one after the other."""
    past: list[JudgedWindow] = []
    for number, signals in enumerate(steps, start=1):
        release = releases[number - 1] if releases else "one"
        window = JudgedWindow(number, f"id{number}", release, rows, signals)
        decision = decide(window, History(tuple(past), attempts, labelled, previous, **told), POLICY)
        past.append(replace(window, decision=decision))
    return [seen.decision for seen in past if seen.decision is not None]


def actions(*args: Any, **facts: Any) -> list[str]:
    return [decision.action for decision in play(*args, **facts)]


CASES: dict[str, tuple[list[tuple[Signal, ...]], list[str]]] = {
    "calm": ([(drift(CALM),)] * 3, ["none"] * 3),
    "one alarm waits": ([(drift(ALARM),), (drift(CALM),)], ["none", "none"]),
    "confirmed on the next window": ([(drift(ALARM),), (drift(LOOSE),)], ["none", "restill"]),
    "the other direction does not confirm": ([(drift(ALARM),), (drift(LOOSE, direction="down"),)], ["none", "none"]),
    "another signal does not confirm": ([(drift(ALARM),), (drift(LOOSE, name="features"),)], ["none", "none"]),
    "a loose p alone is no first alarm": ([(drift(LOOSE),), (drift(LOOSE),)], ["none", "none"]),
    "windows that overlap do not confirm": ([(drift(ALARM),), (drift(ALARM, scale=2),)], ["none", "none"]),
    "merged windows behind the alarm do": (
        [(drift(ALARM),), (drift(CALM),), (drift(LOOSE, scale=2),)],
        ["none", "none", "restill"],
    ),
    "a test that leaves out windows since the alarm does not": (
        [(drift(ALARM),), (drift(CALM),), (drift(LOOSE),)],
        ["none", "none", "none"],
    ),
    "too late": ([(drift(ALARM),), *[(drift(CALM),)] * 8, (drift(LOOSE, scale=9),)], ["none"] * 10),
    "too few answers": ([(drift(ALARM, n=10),), (drift(LOOSE, n=10),)], ["none", "none"]),
    "flood": ([(limit("copies", 0.9, 0.3, "trust"),)], ["block"]),
    "failing": ([(limit("errors", 0.9, 0.02),)], ["block"]),
    "slow once": ([(limit("latency_p99", 900, 250),), (limit("latency_p99", 9, 250),)], ["none", "none"]),
    "slow again": ([(limit("latency_p99", 900, 250),)] * 2, ["none", "investigate"]),
    "at the limit is not over it": ([(limit("copies", 0.3, 0.3, "trust"),)], ["none"]),
    "a blocked window raises no alarm that counts": (
        [(drift(ALARM), limit("copies", 0.9, 0.3, "trust")), (drift(LOOSE),)],
        ["block", "none"],
    ),
    "a blocked window is not restilled on": (
        [(drift(ALARM),), (drift(ALARM), limit("copies", 0.9, 0.3, "trust")), (drift(LOOSE),)],
        ["none", "block", "restill"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_by_table(case: str) -> None:
    steps, expected = CASES[case]
    assert actions(steps) == expected


MOVED = [(drift(ALARM),), (drift(ALARM),)]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"labelled": 49}, "49 labelled rows since the last snapshot; the floor is 50"),
        ({"attempts": (Attempt("restill", -4, None, None),)}, "cooldown until window 2"),
        ({"attempts": (Attempt("restill", -30, -4, "rejected"),)}, "cooldown until window 2"),
        ({"attempts": (Attempt("restill", -20, -19, "promoted"), Attempt("restill", -9, -8, "failed"))}, "the budget is spent"),
        ({"attempts": (Attempt("rollback", 1, None, None),)}, "a rollback is not finished"),
    ],
)
def test_what_hinders_a_restill_is_said(facts: dict[str, Any], reason: str) -> None:
    decision = play(MOVED, **facts)[-1]
    assert decision.action == "investigate"
    assert reason in "; ".join(decision.reasons)


def test_a_cooldown_ends() -> None:
    assert actions(MOVED, attempts=(Attempt("restill", -4, None, None),))[-1] == "investigate"
    assert actions(MOVED, attempts=(Attempt("restill", -5, -5, "rejected"),))[-1] == "restill"


def test_people_are_told_once_an_episode_and_again_of_something_new() -> None:
    steps: list[tuple[Signal, ...]] = [(drift(ALARM),)] * 5
    both: list[tuple[Signal, ...]] = [(drift(ALARM), drift(ALARM, name="features"))] * 2
    decisions = play([*steps, *both], labelled=0)
    assert [d.action for d in decisions] == ["none", "investigate", "none", "none", "none", "none", "investigate"]
    assert [d.news for d in decisions] == [d.action == "investigate" for d in decisions]
    assert decisions[2].reasons == ("goes on, and was told: joint up",)


def test_a_new_release_begins_anew() -> None:
    assert actions([(drift(ALARM),), (drift(ALARM),)], releases=["one", "two"]) == ["none", "none"]


def test_a_heavier_signal_has_a_larger_part_of_the_budget() -> None:
    window = JudgedWindow(1, "id", "one", 125, (drift(0.0015), drift(0.0015, name="features")))
    heavier = POLICY.model_copy(update={"weights": {"features": 3.0}})  # of 0.004: 0.001 and 0.003
    assert decide(window, History((), (), 0, None), POLICY).alarms == ("features up", "joint up")
    assert decide(window, History((), (), 0, None), heavier).alarms == ("features up",)


WORSE = [(error(1, 30),)] * 4 + [(error(12, 30),)] * 2


AFTER = ["one"] * 4 + ["two"] * 2
BAD, ALIKE = Paired(60, 2, 22, 1), Paired(60, 20, 4, 3)
"""What the release before says of the 60: it has 3 of them wrong, or 23, as the one in service has 24."""


def test_a_promotion_that_made_it_worse_is_rolled_back_and_both_figures_are_told() -> None:
    assert actions(WORSE, releases=AFTER, previous="one", paired=BAD)[-2:] == ["none", "rollback"]
    reason, back = play(WORSE, releases=AFTER, previous="one", paired=BAD)[-1].reasons
    assert reason == (
        "24 of 60 answers were wrong, 4 of 120 before the promotion; "
        "of the same 60 rows this release has 24 wrong, release one 3"
    )
    assert back == "back to release one"
    assert actions(WORSE, releases=AFTER, previous=None, paired=BAD)[-1] == "none"


def test_mail_that_both_releases_have_wrong_is_no_reason_to_go_back() -> None:
    last = play(WORSE, releases=AFTER, previous="one", paired=ALIKE)[-1]
    assert last.action == "none"
    assert last.reasons[0].endswith("release one 23, which is not shown to be better: no rollback")
    drifted = [*WORSE[:4], (*WORSE[4], drift(ALARM)), (*WORSE[5], drift(ALARM))]
    assert actions(drifted, releases=AFTER, previous="one", paired=ALIKE)[-1] == "restill", "it is the world that moved"


def test_without_the_release_before_people_are_told_once_and_nothing_is_undone() -> None:
    steps = [*WORSE, WORSE[-1]]
    decisions = play(steps, releases=[*AFTER, "two"], previous="one", not_compared="it is gone")
    assert [d.action for d in decisions[-3:]] == ["none", "investigate", "none"]
    assert decisions[-2].reasons[0].endswith("release one cannot be asked about the same inputs: it is gone")
    drifted = [*WORSE[:4], (*WORSE[4], drift(ALARM)), (*WORSE[5], drift(ALARM))]
    last = play(drifted, releases=AFTER, previous="one", not_compared="it is gone")[-1]
    assert last.action == "restill"
    assert "it is gone" in last.reasons[-1]


def test_limits_newly_broken_are_undone_without_asking() -> None:
    slow, well = limit("latency_p99", 900, 250), limit("latency_p99", 9, 250)
    decided = actions([(well,), (well,), (slow,), (slow,)], releases=["one", "one", "two", "two"], previous="one")
    assert decided[-1] == "rollback"


def test_only_windows_under_suspicion_are_asked_about() -> None:
    past = tuple(
        JudgedWindow(number, f"id{number}", release, 125, signals)
        for number, (release, signals) in enumerate(zip(AFTER, WORSE, strict=True), start=1)
    )
    assert windows_to_compare(past[-1], past[:-1], POLICY) == (5, 6)
    assert windows_to_compare(past[-2], past[:-2], POLICY) == (), "too few labels yet"
    assert windows_to_compare(replace(past[-1], signals=(*WORSE[5], FLOOD)), past[:-1], POLICY) == ()


@pytest.mark.parametrize("error_rate", [0.05, 0.2])
def test_drift_alone_is_seldom_taken_for_a_bad_release(error_rate: float) -> None:
    """400 promotions of a release that is as good as the one before, while the mail gets four times as hard for both."""
    rng, undone, suspicious = np.random.default_rng(3), 0, 0
    for _ in range(400):
        past = [JudgedWindow(n, f"id{n}", "one", 125, (error(int(rng.binomial(12, error_rate / 4)), 12),)) for n in range(1, 9)]
        both = lost = won = 0
        for number in range(9, 9 + POLICY.rollback.within):
            hard = rng.random(12) < error_rate
            here, there = (np.where(rng.random(12) < 0.2, ~hard, hard) for _ in range(2))  # each in its own way
            both, lost, won = both + (here & there).sum(), lost + (here & ~there).sum(), won + (there & ~here).sum()
            window = JudgedWindow(number, f"id{number}", "two", 125, (error(int(here.sum()), 12),))
            paired = Paired(12 * (number - 8), int(both), int(lost), int(won))
            suspicious += bool(windows_to_compare(window, past, POLICY))
            if worse_than_before(window, History(tuple(past), (), 0, "one", paired), POLICY):
                undone += 1
                break
            past.append(window)
    assert suspicious > 100, "the mail is seen to be harder"
    assert undone <= 400 * POLICY.rollback.level


def test_a_promotion_that_is_as_good_stays() -> None:
    decided = actions([(error(1, 30),)] * 8, releases=["one"] * 4 + ["two"] * 4, previous="one", paired=BAD)
    assert set(decided) == {"none"}


def test_an_old_promotion_is_not_rolled_back() -> None:
    steps = [(error(1, 30),)] * 12 + [(error(30, 30),)]
    assert actions(steps, releases=["one"] * 4 + ["two"] * 9, previous="one", paired=BAD)[-1] == "none"


def test_a_release_that_fails_and_answers_nothing_is_rolled_back() -> None:
    past: list[JudgedWindow] = []
    failing, well = (limit("errors", 1.0, 0.02),), (limit("errors", 0.0, 0.02),)
    for number, (release, signals, rows) in enumerate([("one", well, 125), ("two", failing, 0), ("two", failing, 0)], start=1):
        window = JudgedWindow(number, f"id{number}", release, rows, signals)
        decision = decide(window, History(tuple(past), (), 0, "one"), POLICY)
        past.append(replace(window, decision=decision))
    assert [seen.decision.action for seen in past if seen.decision] == ["none", "block", "rollback"]


FLOOD = limit("copies", 0.9, 0.3, "trust")


def test_labels_that_came_in_a_window_not_to_be_trusted_hide_no_bad_promotion() -> None:
    before: list[tuple[Signal, ...]] = [(error(1, 30),)] * 2 + [(error(30, 30), FLOOD)] * 2
    steps = [*before, (error(12, 30),), (error(12, 30),)]
    assert actions(steps, releases=AFTER, previous="one", paired=BAD)[-1] == "rollback"


def test_labels_that_came_in_a_window_not_to_be_trusted_undo_no_promotion() -> None:
    after: list[tuple[Signal, ...]] = [(error(30, 30), FLOOD), (error(1, 30),), (error(1, 30),)]
    decided = actions([*[(error(1, 30),)] * 4, *after], releases=["one"] * 4 + ["two"] * 3, previous="one", paired=BAD)
    assert decided[4:] == ["block", "none", "none"]


def test_a_window_without_a_reference_is_for_people_once_an_episode() -> None:
    why, past = "release two is not in the store", []
    steps = [(limit("errors", 1.0, 0.02),), (limit("errors", 0.0, 0.02),), (FLOOD,)]
    for number, signals in enumerate(steps, start=1):
        window = JudgedWindow(number, f"id{number}", "two", 125, signals, no_reference=why)
        past.append(replace(window, decision=decide(window, History(tuple(past), (), 1000, "one"), POLICY)))
    found = [seen.decision for seen in past if seen.decision is not None]
    assert [decision.action for decision in found] == ["investigate", "none", "block"]
    assert found[0].reasons == (why, "errors 1 is over its limit 0.02")
    assert [decision.news for decision in found] == [True, False, True]


def mix(p: float, **facts: Any) -> Signal:
    return drift(p, name="label_mix", **facts)


MIX = [(mix(ALARM),), (mix(ALARM),)]


@pytest.mark.parametrize(
    ("with_it", "action"),
    [
        ((), "recalibrate"),
        (("uncertain_share", "estimated_accuracy", "realised_error", "realised_precision"), "recalibrate"),
        (("features",), "restill"),
        (("realised_recall",), "restill"),
        (("uncertain_share", "unseen_vocabulary"), "restill"),
    ],
)
def test_the_label_mix_and_what_it_explains_are_recalibrated_and_all_else_restilled(
    with_it: tuple[str, ...], action: str
) -> None:
    steps = [(*signals, *(drift(ALARM, name=name) for name in with_it)) for signals in MIX]
    assert actions(steps)[-1] == action


def test_what_the_inputs_show_to_be_the_mix_s_doing_is_no_reason_to_train() -> None:
    steps = [(*signals, drift(ALARM), drift(ALARM, name="features")) for signals in MIX]
    assert actions(steps, explained=frozenset({"features up"}))[-1] == "restill"
    last = play(steps, explained=frozenset({"features up", "joint up"}))[-1]
    assert last.action == "recalibrate"
    assert "joint up: confirmed on a later window, explained by the label mix" in last.reasons


def test_what_the_label_mix_would_explain_is_restilled_where_the_mix_has_not_moved() -> None:
    assert actions([(drift(ALARM, name="estimated_accuracy"),)] * 2)[-1] == "restill"


@pytest.mark.parametrize(
    ("facts", "action", "reason"),
    [
        ({"labelled": 30}, "recalibrate", "label_mix up: confirmed"),
        ({"labelled": 29}, "investigate", "no recalibration: 29 labelled rows since the last snapshot; its floor is 30"),
        ({"attempts": (Attempt("recalibrate", -5, -4, "rejected"),)}, "restill", "its cooldown lasts until window 2"),
        ({"attempts": (Attempt("recalibrate", -5, -4, "promoted"),)}, "restill", "no recalibration: there was one"),
        ({"attempts": (Attempt("recalibrate", -6, -5, "rejected"),)}, "recalibrate", "label_mix up: confirmed"),
        ({"attempts": (Attempt("recalibrate", 1, None, None),)}, "investigate", "a recalibration is not finished"),
        ({"attempts": (Attempt("restill", -3, -2, "promoted"),)}, "recalibrate", "label_mix up: confirmed"),
        ({"attempts": (Attempt("restill", -9, None, None),)}, "restill", "no recalibration: an intent is open"),
        ({"serves": False}, "restill", "no recalibration: the release is not the champion any more"),
    ],
)
def test_one_recalibration_a_cooldown_and_what_it_has_not_mended_is_left_to_a_restill(
    facts: dict[str, Any], action: str, reason: str
) -> None:
    decision = play(MIX, **facts)[-1]
    assert decision.action == action
    assert reason in "; ".join(decision.reasons)
    assert decision.news


def test_the_mix_is_asked_of_the_windows_since_it_moved() -> None:
    steps = [(mix(CALM),), (mix(ALARM),), (mix(CALM),), (mix(CALM), mix(LOOSE, scale=2), drift(ALARM, scale=4))]
    line = [JudgedWindow(number, f"id{number}", "one", 125, signals) for number, signals in enumerate(steps, start=5)]
    assert windows_since_alarm(line, POLICY) == (6, 7, 8)
    assert windows_since_alarm(line[:3], POLICY) == (7,)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("decide.minimum", 126, "decide.minimum = 126: monitor.windows.count = 125, so no window"),
        ("decide.weights", {"label_mx": 60}, "decide.weights.*label_mx is no signal that is tested; there are label_mix"),
        ("decide.weights", {"latency_p50": 2}, "latency_p50 is no signal that is tested"),
        ("decide.weights", {"joint": -1}, "decide.weights.joint = -1: .*greater than or equal to 0"),
        ("monitor.signals.scales", [], "monitor.signals.scales.*1 is not among them"),
        ("monitor.signals.scales", [2, 4], "monitor.signals.scales.*1 is not among them"),
        ("monitor.signals.scales", [1, 0], "monitor.signals.scales.1 = 0: .*greater than or equal to 1"),
        ("monitor.windows.cuont", 1, "monitor.windows.cuont = 1: Extra inputs"),
        ("decide", None, "decide = None"),
    ],
)
def test_a_bad_parameter_is_one_line_that_names_it(place: str, value: Any, said: str) -> None:
    params = deepcopy(PARAMS)
    *above, name = place.split(".")
    block = params
    for step in above:
        block = block[step]
    block[name] = value
    with pytest.raises(StageError, match=said) as raised:
        read_monitor(params)
    assert "\n" not in str(raised.value)


def test_a_window_decided_before_keeps_its_decision() -> None:
    window = JudgedWindow(1, "id", "one", 125, (drift(ALARM),))
    first = decide(window, History((), (), 0, None), POLICY)
    again = replace(window, number=9, signals=(drift(CALM),))
    assert decide(again, History((replace(window, decision=first),), (), 0, None), POLICY) == first


signals = st.builds(
    drift,
    st.sampled_from([CALM, LOOSE, ALARM]),
    direction=st.sampled_from(["up", "down"]),
    scale=st.sampled_from([1, 2, 4]),
    n=st.sampled_from([10, 125]),
    name=st.sampled_from(["label_mix", "features", "uncertain_share"]),
)
LIMITS = ["errors", "latency_p99", "memory_growth"]
broken = st.builds(limit, st.sampled_from(LIMITS), st.sampled_from([0.0, 2.0]), st.just(1.0))
windows = st.lists(st.lists(signals | broken, max_size=4).map(tuple), min_size=1, max_size=12)
attempts = st.lists(
    st.builds(
        lambda kind, started, took, outcome: Attempt(kind, started, None if outcome is None else started + took, outcome),
        st.sampled_from(["restill", "rollback", "recalibrate"]),
        st.integers(-50, 12),
        st.integers(0, 5),
        st.sampled_from([None, "promoted", "rejected", "failed"]),
    ),
    max_size=3,
).map(tuple)


@settings(max_examples=300, deadline=None)
@given(windows, attempts, st.integers(0, 120))
def test_whatever_comes_nothing_starts_in_a_cooldown_under_the_floor_or_over_the_budget(
    steps: list[tuple[Signal, ...]], tried: tuple[Attempt, ...], labelled: int
) -> None:
    decisions = play(steps, attempts=tried, labelled=labelled)
    assert decisions == play(steps, attempts=tried, labelled=labelled)
    for number, decision in enumerate(decisions, start=1):
        assert decision.action == "none" or decision.reasons
        if decision.action == "recalibrate":
            assert {key.split(" ")[0] for key in decision.confirmed} <= {"label_mix", "uncertain_share", *LIMITS}
            assert labelled >= POLICY.recalibrate.floor
            assert all(a.outcome is not None for a in tried)
            assert all(number - (a.finished or a.started) > POLICY.cooldown for a in tried if a.kind == "recalibrate")
        if decision.action != "restill":
            continue
        restills = [a for a in tried if a.kind == "restill"]
        assert labelled >= POLICY.floor
        assert all(number - a.started > POLICY.cooldown for a in restills)
        assert all(a.finished is None or number - a.finished > POLICY.cooldown for a in restills)
        assert sum(a.started > number - POLICY.budget.windows for a in restills) < POLICY.budget.restills
        assert decision.confirmed
