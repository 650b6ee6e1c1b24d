"""tasks/monitor/windows.py: where windows end, and that every record is in exactly one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.segments import Segment, encode
from tasks.monitor.windows import Plan, Windows, load, plan, unread

RULES = Windows(count=4, seconds=60, minimum=2)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LATER = BEGIN + timedelta(days=1)


def answer(n: int, second: float, release: str = "one") -> dict[str, Any]:
    return {"kind": "answer", "n": n, "time": at(second), "release": release}


def status(n: int, second: float, errors: int = 0) -> dict[str, Any]:
    return {"kind": "status", "n": n, "time": at(second), "release": "one", "errors": errors, "empty": 0}


def at(second: float) -> str:
    return (BEGIN + timedelta(seconds=second)).isoformat(timespec="microseconds")


def planned(journal: dict[str, list[dict[str, Any]]], now: datetime = BEGIN, **more: Any) -> list[Plan]:
    return list(plan(journal, more.get("feedback", {}), more.get("cursors", {}), RULES, now))


def test_a_window_closes_at_its_count_in_the_order_of_time() -> None:
    even = [answer(n, 2 * n) for n in range(5)]
    odd = [answer(n, 2 * n + 1) for n in range(5)]
    windows = planned({"even": even, "odd": odd})
    assert [w.journal for w in windows] == [{"even": (0, 2), "odd": (0, 2)}, {"even": (2, 4), "odd": (2, 4)}]
    assert [w.rows for w in windows] == [4, 4]


def test_time_closes_a_window_that_holds_the_minimum() -> None:
    assert planned({"a": [answer(0, 0)]}, LATER) == []
    records = [answer(0, 0), answer(1, 1)]
    assert planned({"a": records}, BEGIN + timedelta(seconds=59)) == []
    (window,) = planned({"a": records}, BEGIN + timedelta(seconds=60))
    assert window.rows == 2


def test_a_service_that_only_lives_does_not_age_a_window() -> None:
    records = [status(0, 0), answer(1, 100), answer(2, 101)]
    assert planned({"a": records[:1]}, LATER) == []
    assert planned({"a": records}, BEGIN + timedelta(seconds=159)) == []
    (window,) = planned({"a": records}, BEGIN + timedelta(seconds=160))
    assert (window.rows, window.journal) == (2, {"a": (0, 3)})


def test_a_service_that_only_fails_closes_windows_too() -> None:
    (window,) = planned({"a": [status(0, 0, errors=5)]}, LATER)
    assert (window.rows, window.release, window.journal) == (0, "one", {"a": (0, 1)})


def test_no_window_holds_two_releases() -> None:
    first = [answer(0, 0), answer(1, 2), answer(2, 6, "two"), answer(3, 8, "two")]
    second = [answer(0, 1), *(answer(n, 2 + n, "two") for n in range(1, 4))]
    windows = planned({"a": first, "b": second}, LATER)
    assert [(w.release, w.rows) for w in windows] == [("one", 3), ("two", 4)]
    assert windows[1].journal == {"a": (2, 3), "b": (1, 4)}


def test_a_gap_is_a_loss_wherever_it_lies() -> None:
    (window,) = planned({"a": [answer(1, 0), answer(2, 1), answer(5, 2), answer(6, 3)]})
    assert (window.rows, window.lost, window.journal) == (4, 3, {"a": (0, 7)})


def test_feedback_goes_with_the_first_window_that_closes_after_it() -> None:
    labels = [{"n": n, "time": at(second)} for n, second in enumerate((1, 5, 90))]
    windows = planned({"a": [answer(n, n) for n in range(9)]}, feedback={"f": labels})
    assert [(w.labels, w.feedback) for w in windows] == [(1, {"f": (0, 1)}), (1, {"f": (1, 2)})]


def test_records_are_read_from_the_cursor_on_and_loaded_by_range(tmp_path: Path) -> None:
    stem = "20260101T000000000000Z-abcd"
    segment = Segment(tmp_path, stem)
    segment.append(b"".join(encode(answer(n, n)) for n in range(6)))
    assert [r["n"] for r in unread(tmp_path, {stem: 2})[stem]] == [2, 3, 4, 5]
    segment.close()
    assert [r["n"] for r in load(tmp_path, {stem: (1, 4)})] == [1, 2, 3]
    assert unread(tmp_path, {}, frozenset({stem})) == {}
    assert load(tmp_path, {"20250101T000000000000Z-abcd": (0, 9)}) == []


seconds = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(["answer", "status"]), st.sampled_from(["one", "two"])), max_size=20
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), seconds, max_size=3))
def test_every_record_is_in_one_window_at_most_and_ranges_follow_each_other(steps: dict[str, Any]) -> None:
    journal: dict[str, list[dict[str, Any]]] = {}
    for stem, entries in steps.items():
        moment = 0.0
        for n, (step, kind, release) in enumerate(entries):
            moment += step
            made = answer(n, moment, release) if kind == "answer" else status(n, moment)
            journal.setdefault(stem, []).append(made)
    ends: dict[str, int] = {}
    for window in planned(journal, LATER):
        answers = 0
        for stem, (start, stop) in window.journal.items():
            assert start == ends.get(stem, 0) < stop
            ends[stem] = stop
            held = [r for r in journal[stem][start:stop] if r["kind"] == "answer"]
            assert {r["release"] for r in held} <= {window.release}
            answers += len(held)
        assert answers == window.rows <= RULES.count
        assert window.lost == 0
