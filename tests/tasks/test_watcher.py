"""tasks/monitor/watch.py, window_records.py: many windows one after the other, what they share, and dense traffic."""

from __future__ import annotations

import os
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.monitor import records as reading
from tasks.monitor import reference, watch
from tasks.monitor.record import note
from tasks.monitor.records import Reader
from tasks.monitor.signals import Signal
from tasks.monitor.state import State
from tasks.monitor.window_records import WindowRecords, draw
from tasks.stage import Paths
from tests.tasks.traffic import BEGIN, RELEASE, answers, at, feedback, installed, settings, world, write

COUNT = settings()[0].windows.count
LEAST = settings()[0].windows.least_seconds
DENSE = 5
"""Times as many answers as make a window come in its least time."""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    return installed(tmp_path, monkeypatch)


def watcher(paths: Paths) -> watch.Watcher:
    """One that begins with what is cut by now."""
    state = State(paths.monitor / "state.db")
    watch.cut(settings()[0], state, paths)
    return watch.Watcher(*settings(), state, paths)


def send(paths: Paths, windows: int, *, dense: int = 1, wrong: int = 0) -> list[dict[str, Any]]:
    """Calm traffic and a label for every message, the last ``wrong`` of them the other one."""
    made = world(windows * dense * COUNT, np.random.default_rng(5))
    sent = answers(made)
    if dense > 1:
        sent = [record | {"time": at(place * LEAST / (dense * COUNT))} for place, record in enumerate(sent)]
    truth = [int(label) for label in made["label_ids"]]
    said = [1 - label if place >= len(truth) - wrong else label for place, label in enumerate(truth)]
    write(paths.journal, sent)
    write(paths.feedback, feedback(sent, said), worker=1)
    return sent


def judge_all(paths: Paths, most: int) -> list[watch.Judgement]:
    found, watching = [], watcher(paths)
    while judged := watching.judge_next(most, BEGIN):
        found += judged
    return found


def by_key(signals: tuple[Signal, ...]) -> dict[str, Signal]:
    return {one.key: one for one in signals}


def test_windows_judged_together_are_judged_as_each_alone(paths: Paths) -> None:
    send(paths, 12, wrong=3 * COUNT)
    monitor, policy = settings()
    state = State(paths.monitor / "state.db")
    alone = [watch.judge(monitor, policy, state, paths, window, BEGIN) for window in watch.cut(monitor, state, paths)]
    state_db = paths.monitor / "state.db"
    state_db.rename(state_db.with_name("alone.db"))
    for left in paths.monitor.glob("state.db-*"):
        left.unlink()
    assert judge_all(paths, 5) == alone
    assert {one.decision.action for one in alone} > {"none"}


def test_the_reference_and_each_record_are_read_once(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = send(paths, 20)
    counted: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            counted[name] += 1
            return function(*given)

        return call

    watching = watcher(paths)
    monkeypatch.setattr(reading, "decode", counting("decode", reading.decode))
    monkeypatch.setattr(reference, "load_reference", counting("load", reference.load_reference))
    monkeypatch.setattr(reference, "Reference", counting("prepare", reference.Reference))
    while watching.judge_next(8):
        pass
    windows = 20
    assert counted["load"] == counted["prepare"] == 1
    assert counted["decode"] <= 2 * (len(sent) + windows), "answers and labels, and the first one of the next window"


def test_what_is_kept_of_past_windows_is_bounded(paths: Paths) -> None:
    send(paths, 30)
    watching = watcher(paths)
    while watching.judge_next(7):
        pass
    bound = 2 * max(settings()[0].signals.scales)
    assert len(watching._cache._windows) <= bound
    assert len(watching._references[RELEASE].reference._ranked) <= bound + 1, "and the reference itself"
    assert len(watching._past) <= settings()[1].memory


def test_a_batch_that_is_killed_is_judged_again_and_once(paths: Paths) -> None:
    send(paths, 6)
    watching = watcher(paths)
    child = os.fork()
    if child == 0:
        try:
            done = 0
            measure = watch.Watcher.measure

            def killing(*given: Any) -> Any:
                nonlocal done
                done += 1
                if done == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                return measure(*given)

            watch.Watcher.measure = killing  # type: ignore[method-assign]
            judge_all(paths, 3)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    state = State(paths.monitor / "state.db")
    assert [seen.number for seen in state.past(100, 100)] == [1, 2, 3], "the first batch, and of the second nothing"
    assert [one.window.number for one in judge_all(paths, 3)] == [4, 5, 6]
    assert watching.judge_next() == []


def test_a_transaction_is_not_held_for_long(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that wants to write meanwhile waits a minute at most."""
    send(paths, 3)
    monkeypatch.setattr(watch, "SECONDS", 0.0)
    watching = watcher(paths)
    assert [len(watching.judge_next()) for _ in range(4)] == [1, 1, 1, 0]


def test_an_error_in_one_window_does_not_undo_those_before_it(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    send(paths, 4)
    measure = watch.Watcher.measure

    def failing(self: watch.Watcher, window: Any, *given: Any) -> Any:
        if window.number == 3:
            raise ZeroDivisionError
        return measure(self, window, *given)

    monkeypatch.setattr(watch.Watcher, "measure", failing)
    watching = watcher(paths)
    assert [one.window.number for one in watching.judge_next()] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        watching.judge_next()
    monkeypatch.undo()
    assert [one.window.number for one in watching.judge_next()] == [3, 4]
    assert State(paths.monitor / "state.db").newest(100) == 4


def test_a_watcher_sees_what_another_judged(paths: Paths) -> None:
    send(paths, 6)
    first, second = watcher(paths), watcher(paths)
    judged = [one for watching in (first, second, first, second) for one in watching.judge_next(2)]
    assert [one.window.number for one in judged] == [1, 2, 3, 4, 5, 6]
    assert {one.windows for one in judged[-1].signals if one.kind == "drift"} == {1, 2, 4}
    assert [seen.number for seen in first._before(7)] == [1, 2, 3, 4, 5, 6]


# Dense traffic


def test_a_dense_window_is_tested_on_a_sample_and_counted_in_full(paths: Paths) -> None:
    send(paths, 3, dense=DENSE)
    judged = judge_all(paths, 10)
    for number, one in enumerate(judged, start=1):
        rows = one.window.plan.rows
        assert rows > COUNT * (DENSE - 1)
        found = by_key(one.signals)
        assert {s.n for s in one.signals if s.kind == "drift" and s.windows == 1} == {COUNT}
        assert {s.n for s in one.signals if s.kind == "drift" and s.windows == 2} == ({2 * COUNT} if number > 1 else set())
        assert found["latency_p50@1"].n == found["truncated@1"].n == rows
        assert found["copies@1"].n == found["near_copies@1"].n == COUNT, "the more there are, the more repeat"
        assert found["realised_error@1"].n == one.window.plan.labels, "no label is lost"
    assert sum(one.window.plan.labels for one in judged) == sum(one.window.plan.rows for one in judged)
    assert [one.decision.action for one in judged] == ["none"] * 3
    (last,) = State(paths.monitor / "state.db").past(100, 1)
    told = note(last, judged[-1].decision, None)
    assert f"({last.rows} answers of release {RELEASE}, {COUNT} of them measured)" in told


def test_a_drift_of_dense_traffic_is_seen(paths: Paths) -> None:
    rng, per = np.random.default_rng(5), DENSE * COUNT
    parts = [world(4 * per, rng), world(4 * per, rng, spam=0.7, moved=0.5)]
    sent = [record for number, part in enumerate(parts) for record in answers(part, start=number * 4 * per)]
    sent = [record | {"time": at(place * LEAST / per)} for place, record in enumerate(sent)]
    write(paths.journal, sent)
    write(paths.feedback, feedback(sent, [int(label) for part in parts for label in part["label_ids"]]), worker=1)
    actions = [one.decision.action for one in judge_all(paths, 10)]
    assert actions[:4] == ["none"] * 4
    assert "restill" in actions[4:]


def test_all_records_of_dense_traffic_are_in_one_window(paths: Paths) -> None:
    sent = send(paths, 4, dense=DENSE)
    plans = [one.window.plan for one in judge_all(paths, 10)]
    assert plans
    ranges = [stretch for plan in plans for stretch in plan.journal.values()]
    assert ranges[0][0] == 0
    assert all(stop == start for (_, stop), (start, _) in pairwise(ranges))
    assert sum(plan.rows for plan in plans) == ranges[-1][1] <= len(sent)
    assert sum(plan.lost for plan in plans) == 0


def test_a_sample_is_the_same_whenever_it_is_drawn(paths: Paths) -> None:
    send(paths, 2, dense=DENSE)
    state = State(paths.monitor / "state.db")
    window = watch.cut(settings()[0], state, paths)[0]
    held = reference.stored_reference(paths.store, RELEASE)

    def drawn() -> np.ndarray[Any, Any]:
        return WindowRecords(window, Reader(paths.journal), Reader(paths.feedback), COUNT).sample(held).features

    assert np.array_equal(drawn(), drawn())
    assert len(drawn()) == COUNT


def test_what_is_not_drawn_is_counted_and_not_kept_whole() -> None:
    records = answers(world(300, np.random.default_rng(0)))
    status = {"kind": "status", "n": 300, "time": at(9)}
    every, sample = draw([*(("a", record) for record in records), ("a", status)], 40)
    assert len(every) == 301
    assert [record["time"] for record in every] == sorted(record["time"] for record in every)
    assert len(sample) == 40
    assert all(record in records for record in sample)
    assert sum("descriptors" in record for record in every) == 40
    assert {record["client"] for record in every if record["kind"] == "answer"} == {f"client {n}" for n in range(7)}


def test_a_sample_is_in_step_with_nothing_and_of_a_small_window_it_is_all() -> None:
    """Eight clients in turn: each has an eighth of the sample, as a binomial count has it."""
    records = [
        {"kind": "answer", "n": n, "time": at(n), "client": n % 8, "latency_us": 1, "truncated": False} for n in range(8000)
    ]
    _, sample = draw((("a", record) for record in records), 800)
    shares = Counter(record["client"] for record in sample)
    assert min(shares.values()) > 60
    assert max(shares.values()) < 140
    _, all_of_it = draw((("a", record) for record in records[:800]), 800)
    assert all_of_it == records[:800]
