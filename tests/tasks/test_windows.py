"""tasks/monitor/traffic_windows.py: where windows end, and that every record is in exactly one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.segments import Segment, encode
from tasks.monitor.records import Reader, read_unread
from tasks.monitor.traffic_windows import Plan, TrafficWindows, plan

RULES = TrafficWindows(count=4, least_seconds=0, seconds=60, minimum=2)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LATER = BEGIN + timedelta(days=1)


def answer(n: int, second: float, release: str = "one") -> dict[str, Any]:
    return {"kind": "answer", "n": n, "time": at(second), "release": release}


def status(n: int, second: float, errors: int = 0) -> dict[str, Any]:
    return {"kind": "status", "n": n, "time": at(second), "release": "one", "errors": errors, "empty": 0}


def at(second: float) -> str:
    return (BEGIN + timedelta(seconds=second)).isoformat(timespec="microseconds")


def planned(journal: dict[str, list[dict[str, Any]]], now: datetime | None = BEGIN, **more: Any) -> list[Plan]:
    rules = RULES.model_copy(update={"least_seconds": more.get("least", 0)})
    return list(plan(journal, more.get("feedback", {}), more.get("cursors", {}), rules, now))


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


def test_a_window_grows_with_dense_traffic_and_lasts_its_least_time() -> None:
    """Ten answers a second, then one in two: windows last a second, and then go by their count."""
    dense = [answer(n, n / 10) for n in range(50)]
    sparse = [answer(50 + n, 5 + 2 * n) for n in range(9)]
    windows = planned({"a": [*dense, *sparse]}, least=1)
    assert [w.rows for w in windows] == [11, 11, 11, 11, 8, 4]
    assert [w.journal["a"] for w in windows[:2]] == [(0, 11), (11, 22)]
    assert [w.rows for w in planned({"a": sparse}, cursors={"a": 50}, least=1)] == [4, 4], "as without it"


def test_a_full_window_that_nothing_follows_is_closed_by_its_least_time() -> None:
    burst = [answer(n, n / 100) for n in range(9)]
    assert planned({"a": burst}, BEGIN + timedelta(seconds=9), least=10) == []
    (window,) = planned({"a": burst}, BEGIN + timedelta(seconds=10), least=10)
    assert window.rows == 9
    assert planned({"a": burst[:3]}, BEGIN + timedelta(seconds=10), least=10) == [], "it is not full"


def test_a_status_closes_a_full_window_too() -> None:
    (window,) = planned({"a": [*(answer(n, n / 100) for n in range(9)), status(9, 10)]}, least=10)
    assert (window.rows, window.journal) == (9, {"a": (0, 10)})


def test_a_dense_window_ends_where_the_release_changes() -> None:
    records = [answer(n, n / 10, "one" if n < 5 else "two") for n in range(30)]
    assert [(w.release, w.rows) for w in planned({"a": records}, least=2)] == [("one", 5), ("two", 21)]


def test_where_later_records_are_not_given_time_closes_nothing() -> None:
    records = [answer(n, n) for n in range(7)]
    assert [w.rows for w in planned({"a": records}, LATER)] == [4, 3]
    assert [w.rows for w in planned({"a": records}, None)] == [4]


def test_least_seconds_are_no_more_than_seconds() -> None:
    with pytest.raises(ValidationError, match="least_seconds = 61 is more than seconds = 60"):
        TrafficWindows(count=4, least_seconds=61, seconds=60, minimum=2)


def test_feedback_goes_with_the_first_window_that_closes_after_it() -> None:
    labels = [{"n": n, "time": at(second)} for n, second in enumerate((1, 5, 90))]
    windows = planned({"a": [answer(n, n) for n in range(9)]}, feedback={"f": labels})
    assert [(w.labels, w.feedback) for w in windows] == [(1, {"f": (0, 1)}), (1, {"f": (1, 2)})]


STEM = "20260101T000000000000Z-abcd"


def numbers(reader: Reader, ranges: dict[str, tuple[int, int]]) -> list[int]:
    return [record["n"] for _, record in reader.read(ranges)]


def test_records_are_read_from_the_cursor_on_and_loaded_by_range(tmp_path: Path) -> None:
    segment = Segment(tmp_path, STEM)
    segment.append(b"".join(encode(answer(n, n)) for n in range(6)))
    assert [r["n"] for r in read_unread(tmp_path, {STEM: 2}).records[STEM]] == [2, 3, 4, 5]
    segment.close()
    assert numbers(Reader(tmp_path), {STEM: (1, 4)}) == [1, 2, 3]
    assert read_unread(tmp_path, {}, frozenset({STEM})).records == {}
    assert numbers(Reader(tmp_path), {"20250101T000000000000Z-abcd": (0, 9)}) == []


def test_a_reader_goes_on_where_it_was_and_back_where_it_must(tmp_path: Path) -> None:
    """While the segment grows, is closed, and has broken lines, of which one claims a number far ahead."""
    segment = Segment(tmp_path, STEM)
    segment.append(b"".join(encode(answer(n, n)) for n in range(4)))
    reader = Reader(tmp_path)
    assert numbers(reader, {STEM: (0, 2)}) == [0, 1]
    segment.append(b'00000000 {"kind":"answer","n":999}\n' + b"".join(encode(answer(n, n)) for n in range(5, 8)))
    segment.append(encode(answer(8, 8))[:-9])
    segment.close()
    assert numbers(reader, {STEM: (2, 6)}) == [2, 3, 5]
    assert numbers(reader, {STEM: (1, 3)}) == [1, 2]
    assert numbers(reader, {STEM: (6, 9)}) == [6, 7]
    assert numbers(reader, {}) == []
    assert numbers(reader, {STEM: (7, 9)}) == [7]


def test_a_range_that_was_not_read_to_its_end_is_read_again(tmp_path: Path) -> None:
    segment = Segment(tmp_path, STEM)
    segment.append(b"".join(encode(answer(n, n)) for n in range(6)))
    reader = Reader(tmp_path)
    assert next(reader.read({STEM: (0, 5)}))[1]["n"] == 0
    assert numbers(reader, {STEM: (0, 5)}) == [0, 1, 2, 3, 4]


def test_of_many_records_the_oldest_are_read_first(tmp_path: Path) -> None:
    """Three workers; of the last segment nothing is read yet, so of the others only what is older than it."""
    stems = [f"20260101T{second:06d}000000Z-abcd" for second in (0, 1, 5)]
    for stem, start in zip(stems, (0, 1, 5), strict=True):
        segment = Segment(tmp_path, stem)
        segment.append(b"".join(encode(answer(n, start + 2 * n)) for n in range(4)))
        segment.close()
    found = read_unread(tmp_path, {}, most=8)
    assert found.until == at(5)
    assert {stem: [r["n"] for r in records] for stem, records in found.records.items()} == {
        stems[0]: [0, 1, 2],
        stems[1]: [0, 1],
    }
    assert found.whole == frozenset()
    rest = read_unread(tmp_path, {stems[0]: 3, stems[1]: 2}, most=8)
    assert (rest.until, sum(map(len, rest.records.values())), rest.whole) == (None, 7, frozenset(stems))


seconds = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from(["answer", "status"]), st.sampled_from(["one", "two"])), max_size=20
)


def made(steps: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    journal: dict[str, list[dict[str, Any]]] = {}
    for stem, entries in steps.items():
        moment = 0.0
        for n, (step, kind, release) in enumerate(entries):
            moment += step
            record = answer(n, moment, release) if kind == "answer" else status(n, moment)
            journal.setdefault(stem, []).append(record)
    return journal


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), seconds, max_size=3), st.sampled_from([0, 1, 30]))
def test_every_record_is_in_one_window_at_most_and_ranges_follow_each_other(steps: dict[str, Any], least: float) -> None:
    journal = made(steps)
    ends: dict[str, int] = {}
    for window in planned(journal, LATER, least=least):
        answers: list[str] = []
        for stem, (start, stop) in window.journal.items():
            assert start == ends.get(stem, 0) < stop
            ends[stem] = stop
            held = [r for r in journal[stem][start:stop] if r["kind"] == "answer"]
            assert {r["release"] for r in held} <= {window.release}
            answers += [r["time"] for r in held]
        assert len(answers) == window.rows
        full_from = (BEGIN + timedelta(seconds=least) + (datetime.fromisoformat(min(answers)) - BEGIN)) if answers else BEGIN
        early = [time for time in answers if datetime.fromisoformat(time) < full_from]
        assert window.rows <= max(RULES.count, len(early) + 1), "more than its count, but within its least time"
        assert window.lost == 0


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), seconds, max_size=3), st.sampled_from([0, 1, 30]), st.integers(0, 40))
def test_windows_are_the_same_however_early_it_was_asked(steps: dict[str, Any], least: float, place: int) -> None:
    """Of what came by some moment, and then of the rest; where the release does not change, for that closes one early."""
    journal = {stem: [r | {"release": "one"} for r in records] for stem, records in made(steps).items()}
    moment = at(place)
    early = {stem: [r for r in records if r["time"] <= moment] for stem, records in journal.items()}
    first = planned(early, least=least)
    cursors = {stem: stop for window in first for stem, (_, stop) in window.journal.items()}
    late = {stem: records[cursors.get(stem, 0) :] for stem, records in journal.items()}
    assert [*first, *planned(late, cursors=cursors, least=least)] == planned(journal, least=least)
