"""tasks/monitor/state.py: every window cut once, judged once, every intent written once, whatever is killed and when."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.segments import Segment, encode
from tasks.monitor.decide import Decision, decision_id
from tasks.monitor.signals import Signal
from tasks.monitor.state import State, TrafficWindow
from tasks.monitor.traffic_windows import TrafficWindows
from tasks.stage import StageError
from tests.tasks.traffic import BEGIN, RELEASE, at, stem, write

RULES = TrafficWindows(count=10, least_seconds=0, seconds=1e9, minimum=5)
NOW = BEGIN + timedelta(days=1)
SIGNAL = Signal("label_mix", "drift", 0.5, 0.4, 0.6, 0.4, 0.01, "spam up", 10)


def records(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"kind": "answer", "n": n, "time": at(n), "release": RELEASE} for n in range(start, start + count)]


def labels(count: int) -> list[dict[str, Any]]:
    return [{"kind": "feedback", "n": n, "time": at(n)} for n in range(count)]


def decision(window: TrafficWindow, action: Any = "none") -> Decision:
    return Decision(decision_id(window.id), action, ("why",), (), (), (), news=action == "restill")


def cut(state: State, home: Path) -> list[TrafficWindow]:
    return state.cut(home / "journal", home / "feedback", RULES, NOW)


def work(home: Path, action: str = "none") -> None:
    """What a monitor does."""
    state = State(home / "state.db")
    cut(state, home)
    for window in state.unjudged():
        state.judge(window, (SIGNAL,), decision(window, action), NOW)


def work_at_once(home: Path, action: str = "none") -> None:
    """The same, but that the windows are judged two in a transaction."""
    state = State(home / "state.db")
    cut(state, home)
    while state.unjudged(1):
        with state.transaction():
            for window in state.unjudged(2):
                state.judge(window, (SIGNAL,), decision(window, action), NOW)


Work = Callable[[Path, str], None]


def killed(task: Callable[[], None]) -> bool:
    """Run ``task`` in a process of its own; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            task()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def at_statement(number: int, home: Path, work: Work = work) -> Callable[[], None]:
    """The work of a monitor that is killed with -9 at its ``number``-th SQL statement."""

    def task() -> None:
        seen = 0

        def count(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        connect = sqlite3.connect

        def traced(*given: Any, **named: Any) -> sqlite3.Connection:
            base = connect(*given, **named)
            base.set_trace_callback(count)
            return base

        sqlite3.connect = traced  # type: ignore[assignment]
        work(home, "restill")

    return task


def check(home: Path, total: int, closed: int) -> None:
    """Windows follow each other, each judged once, one restill intent in all."""
    state = State(home / "state.db")
    assert state.unjudged() == []
    seen = state.past(1000, 1000)
    windows = [state.window(past.number) for past in seen]
    assert [w.plan.journal[stem(0)] for w in windows] == [(10 * k, 10 * k + 10) for k in range(closed)]
    assert sum(w.plan.rows for w in windows) == 10 * closed <= total
    assert sum(w.plan.labels for w in windows) == 10 * closed
    assert len({w.id for w in windows}) == closed
    assert len(state.attempts()) == 1
    assert (intent := state.open_intent()) is not None
    assert intent.window == 1


@pytest.mark.parametrize("work", [work, work_at_once])
def test_killed_at_every_statement_every_window_is_judged_once(tmp_path: Path, work: Work) -> None:
    kills = 0
    for number in range(1, 60):
        home = tmp_path / str(number)
        write(home / "journal", records(35))
        write(home / "feedback", labels(35), worker=1)
        died = killed(at_statement(number, home, work))
        kills += died
        work(home, "restill")
        check(home, 35, 3)
        if not died:
            break
    assert kills > 20
    assert not died


def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    write(tmp_path / "journal", records(100))
    write(tmp_path / "feedback", labels(100), worker=1)
    for number in range(8, 60, 3):
        killed(at_statement(number, tmp_path))
    work(tmp_path, "restill")
    check(tmp_path, 100, 10)


def test_two_monitors_at_once_take_turns(tmp_path: Path) -> None:
    write(tmp_path / "journal", records(200))
    write(tmp_path / "feedback", labels(200), worker=1)
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                work(tmp_path, "restill")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    check(tmp_path, 200, 20)


def test_what_fails_within_a_transaction_is_undone_alone(tmp_path: Path) -> None:
    write(tmp_path / "journal", records(20))
    state = State(tmp_path / "state.db")
    first, second = cut(state, tmp_path)
    with state.transaction():
        state.judge(first, (), decision(first, "restill"), NOW)
        with pytest.raises(ZeroDivisionError), state.transaction():
            state.judge(second, (), decision(second, "rollback"), NOW)
            raise ZeroDivisionError
        assert state.newest(100) == 1
    assert [seen.number for seen in State(tmp_path / "state.db").past(100, 100)] == [1]
    assert [attempt.kind for attempt in state.attempts()] == ["restill"]
    with pytest.raises(ZeroDivisionError), state.transaction():
        state.judge(second, (), decision(second), NOW)
        raise ZeroDivisionError
    assert [window.number for window in state.unjudged()] == [2]


def write_backlog(folder: Path, workers: int, segments: int, records: int) -> None:
    """Segments that follow each other, of workers that answer in turn; a second apart."""
    for number in range(segments):
        for worker in range(workers):
            begin = (number * records * workers) + worker
            name = (BEGIN + timedelta(seconds=begin)).strftime("%Y%m%dT%H%M%S%fZ")
            segment = Segment(folder, f"{name}-{worker:04x}")
            times = [at(begin + n * workers) for n in range(records)]
            lines = [{"kind": "answer", "n": n, "time": time, "release": RELEASE} for n, time in enumerate(times)]
            segment.append(b"".join(map(encode, lines)))
            segment.close()


@pytest.mark.parametrize("at_once", [1, 25, 70])
def test_a_long_backlog_is_cut_piece_by_piece_into_the_same_windows(tmp_path: Path, at_once: int) -> None:
    write_backlog(tmp_path / "journal", workers=3, segments=4, records=23)
    write(tmp_path / "feedback", labels(200), worker=9)
    given = (tmp_path / "journal", tmp_path / "feedback", RULES, NOW)
    whole = State(tmp_path / "whole.db").cut(*given)
    state = State(tmp_path / "pieces.db")
    assert state.cut(*given, at_once=at_once) == whole
    assert len(whole) == 27
    assert state.cut(*given, at_once=at_once) == []
    with sqlite3.connect(tmp_path / "pieces.db") as pieces, sqlite3.connect(tmp_path / "whole.db") as base:
        stored = "SELECT segment, next, done FROM cursors ORDER BY segment"
        State(tmp_path / "whole.db").cut(*given)
        assert pieces.execute(stored).fetchall() == base.execute(stored).fetchall()


def test_a_segment_that_grows_and_closes_is_read_on_from_where_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "journal", records(15))
    path = path.rename(path.with_suffix(".open"))
    state = State(tmp_path / "state.db")
    assert [w.plan.rows for w in cut(state, tmp_path)] == [10]
    path.unlink()
    write(tmp_path / "journal", records(20))
    assert [w.plan.journal for w in cut(state, tmp_path)] == [{stem(0): (10, 20)}]
    assert cut(state, tmp_path) == []


def test_broken_lines_are_a_loss_and_stop_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "journal", records(14))
    lines = path.read_bytes().split(b"\n")
    lines[2] = b"00000000 {}"
    lines[5] = lines[5][:-7]
    path.write_bytes(b"\n".join(lines))
    (window,) = cut(State(tmp_path / "state.db"), tmp_path)
    assert (window.plan.journal, window.plan.rows, window.plan.lost) == ({stem(0): (0, 12)}, 10, 2)


def test_a_segment_gone_before_it_was_read_is_a_loss_once(tmp_path: Path) -> None:
    first = write(tmp_path / "journal", records(15))
    first = first.rename(first.with_suffix(".open"))
    state = State(tmp_path / "state.db")
    cut(state, tmp_path)
    first.unlink()
    write(tmp_path / "journal", records(20), worker=1)
    assert [w.plan.lost for w in cut(state, tmp_path)] == [1, 0]


def test_a_segment_read_to_its_end_may_go(tmp_path: Path) -> None:
    first = write(tmp_path / "journal", records(10))
    state = State(tmp_path / "state.db")
    cut(state, tmp_path)
    cut(state, tmp_path)
    first.unlink()
    write(tmp_path / "journal", records(10), worker=1)
    assert [w.plan.lost for w in cut(state, tmp_path)] == [0]


@pytest.fixture
def judged(tmp_path: Path) -> State:
    """Three windows, restill decided about the first and the third, with 30 labels."""
    write(tmp_path / "journal", records(30))
    write(tmp_path / "feedback", labels(30), worker=1)
    state = State(tmp_path / "state.db")
    for window, action in zip(cut(state, tmp_path), ("restill", "none", "restill"), strict=True):
        state.judge(window, (SIGNAL,), decision(window, action), NOW)
    return state


def test_a_second_restill_is_merged_into_the_open_one(judged: State) -> None:
    assert len(judged.attempts()) == 1
    last = judged.window(3)
    assert judged.judge(last, (SIGNAL,), decision(last, "restill"), NOW) == judged.open_intent("restill")


def test_an_intent_holds_what_was_seen_when_it_was_decided(tmp_path: Path) -> None:
    write(tmp_path / "journal", records(20))
    state = State(tmp_path / "state.db")
    first, second = cut(state, tmp_path)
    intent = state.judge(first, (), decision(first, "rollback"), NOW, champion=RELEASE, token=7)
    assert intent is not None
    assert intent.facts == {"champion": RELEASE, "token": 7}
    assert state.judge(second, (), decision(second, "rollback"), NOW, token=8) == intent, "merged into the first"


def test_shown_is_what_is_news_and_the_newest_each_once(judged: State, tmp_path: Path) -> None:
    assert [seen.number for seen in judged.unshown("report", 2)] == [3]
    assert [seen.number for seen in judged.unshown("report", 3)] == [1, 3]
    assert judged.unshown("report", 3) == judged.past(4, 10)[::2]
    for _ in range(2):
        judged.show("report", 3)
    assert [seen.number for seen in judged.unshown("report", 3)] == [1]
    assert [seen.number for seen in judged.unshown("report", 1)] == []
    assert [seen.number for seen in judged.unshown("publish", 3)] == [1, 3]
    write(tmp_path / "journal", records(20), worker=2)
    calm, newest = cut(judged, tmp_path)
    for window in (calm, newest):
        judged.judge(window, (), decision(window), NOW)
    assert [seen.number for seen in judged.unshown("report", 5)] == [1, 5], (
        "a calm one that is not the newest any more waits not"
    )


def test_a_plan_of_an_earlier_version_is_read(judged: State, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as base:
        (stored,) = base.execute("SELECT plan FROM windows WHERE number = 1").fetchone()
        earlier = json.loads(stored) | {"opened": "", "closed": "", "reason": "count"}
        base.execute("UPDATE windows SET plan = ? WHERE number = 1", (json.dumps(earlier),))
    assert judged.window(1).plan.rows == 10


def test_what_was_seen_and_decided_comes_back_as_it_was(judged: State) -> None:
    (first, second, third) = judged.past(4, 10)
    assert first.signals == (SIGNAL,)
    assert first.decision == decision(judged.window(1), "restill")
    assert [judged.past(3, 1)[0].number, second.number, third.rows] == [2, 2, 10]


def test_a_window_judged_again_stays_as_it_was(judged: State) -> None:
    window = judged.window(2)
    assert judged.judge(window, (), replace(decision(window), action="rollback"), NOW) is None
    assert [a.kind for a in judged.attempts()] == ["restill"]
    assert judged.past(4, 10)[1].signals == (SIGNAL,)


def test_steps_of_an_intent_are_idempotent_and_end(judged: State) -> None:
    intent = judged.open_intent()
    assert intent is not None
    for _ in range(2):
        judged.advance(intent.id, "snapshot", version="v2")
    moved = judged.advance(intent.id, "gated", passed=False)
    assert (moved.step, moved.facts) == ("gated", {"version": "v2", "passed": False})
    for _ in range(2):
        ended = judged.end(intent.id, "rejected", why="worse")
    assert (ended.outcome, ended.facts["why"]) == ("rejected", "worse")
    assert judged.open_intent() is None
    assert judged.attempts()[0].finished == 3
    with pytest.raises(StageError, match="ended as rejected; step gated comes too late"):
        judged.advance(intent.id, "gated")
    with pytest.raises(StageError, match="cannot end as promoted"):
        judged.end(intent.id, "promoted")


@pytest.mark.parametrize(("outcome", "left"), [("promoted", 20), ("rejected", 20), ("failed", 30)])
def test_labels_count_from_the_last_snapshot(judged: State, outcome: str, left: int) -> None:
    judged.end(1, outcome)
    assert [judged.labelled(number) for number in (1, 2, 3)] == [10, left - 10, left]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("nothing of the sort" * 100)
    with pytest.raises(StageError, match=r"state\.db: .*move it away"):
        State(tmp_path / "state.db")
