"""envelope.py: which lines are an mbox's envelopes, and when their messages came, wherever the machine stands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.kinds.text_classification.envelope import LINE_BYTES, envelope_time, read_envelope

AT = datetime(2002, 8, 22, 13, 17, 22, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "hours"),
    [
        ("From a@b.c Thu Aug 22 13:17:22 2002", 0),
        ("From a@b.c  Thu Aug 22 13:17:22 2002\r\n", 0),
        ("From a@b.c\tThu\tAug\t22\t13:17:22\t2002\n", 0),
        ("From a@b.c Thu Aug 22 13:17:22 EDT 2002", -4),
        ("From a@b.c Thu Aug 22 13:17:22 edt 2002", -4),
        ("From a@b.c Thu Aug 22 13:17:22 2002 PST", -8),
        ("From a@b.c Thu Aug 22 13:17:22 CEST 2002", 2),
        ("From a@b.c Thu Aug 22 13:17:22 MET DST 2002", 2),
        ("From a@b.c Thu Aug 22 13:17:22 UTC 2002", 0),
        ("From a@b.c Thu Aug 22 13:17:22 Z 2002", 0),
        ("From a@b.c Thu Aug 22 13:17:22 XYZ 2002", 0),
        ("From 1234@xxx Thu Aug 22 13:17:22 +0000 2002", 0),
        ("From a@b.c Thu Aug 22 13:17:22 2002 +0530 (IST)", 5.5),
        ("From a@b.c Thu Aug 22 13:17:22 -03:30 2002", -3.5),
        ("From a@b.c Thu Aug 22 13:17:22 GMT+2 2002", 2),
        ("From a@b.c Thu, 22 Aug 2002 13:17:22 +0200", 2),
        ("From a@b.c Thu, 22-Aug-2002 13:17:22 GMT", 0),
        ("From uucp Thu Aug 22 13:17:22 2002 remote from host", 0),
        ("From a@b.c Thu Aug 22 13:17:22.250 2002", 0),
        ("From - Thu Aug 22 13:17:22 2002", 0),
        ("From <> Thu Aug 22 13:17:22 2002", 0),
        ("From ???@??? Thu Aug 22 13:17:22 2002", 0),
        ("From 'x y'@b.c Thu Aug 22 13:17:22 2002", 0),
        ('From "x y"@b.c Thu Aug 22 13:17:22 2002', 0),
        ("From me at lists.invalid  Thu Aug 22 13:17:22 2002", 0),
        ("From John Smith <a@b.c> Thu Aug 22 13:17:22 2002", 0),
        ("From Mon Thu Aug 22 13:17:22 2002", 0),
        ("From Thu Aug 22 13:17:22 2002", 0),
        ("From jos\xe9@b.c Thu Aug 22 13:17:22 2002", 0),
    ],
)
def test_envelopes_and_their_times(line: str, hours: float) -> None:
    there = AT.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert envelope_time(line) == there
    assert envelope_time(line.encode("latin-1")) == there


def test_an_envelope_may_leave_out_the_seconds_and_a_day_may_have_one_digit() -> None:
    assert envelope_time("From a@b.c Thu Aug  2 13:17 2002") == datetime(2002, 8, 2, 13, 17, tzinfo=UTC)
    assert envelope_time("From a@b.c Sun Dec 31 23:59:60 1995") == datetime(1995, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        "From now on, call first.",
        "From Monday on we also sell compost.",
        "From Thu Aug 22 on we meet at 13:17:22 in 2002",
        "From a@b.c Thu Aug 22 13:17:22 2002, it rained",
        "From a@b.c Thu Aug 22 2002",
        "From a@b.c Aug 22 13:17:22 2002",
        "From a@b.c Thu Aug 32 13:17:22 2002",
        "From a@b.c Thu Feb 30 13:17:22 2002",
        "From a@b.c Thu Aug 22 25:17:22 2002",
        "From a@b.c Thu Aug 22 13:17:22 +9900 2002",
        "From a@b.c Thu Aug 22 13:17:22 0000",
        "From: a@b.c Thu Aug 22 13:17:22 2002",
        "from a@b.c Thu Aug 22 13:17:22 2002",
        ">From a@b.c Thu Aug 22 13:17:22 2002",
        " From a@b.c Thu Aug 22 13:17:22 2002",
        "From a@b.cThu Aug 22 13:17:22 2002",
        "From ",
        "",
        "From " + "x" * LINE_BYTES + " Thu Aug 22 13:17:22 2002",
    ],
)
def test_other_lines_are_none(line: str) -> None:
    assert envelope_time(line) is None


@pytest.mark.parametrize(
    ("sender", "plain"),
    [("a@b.c", True), ("-", True), ('"x y"@b.c', True), ("me at lists.invalid", True), ("the log of", False), ("", False)],
)
def test_words_with_blanks_between_are_told_from_an_address(sender: str, plain: bool) -> None:
    envelope = read_envelope(f"From {sender} Thu Aug 22 13:17:22 2002")
    assert envelope is not None
    assert (envelope.sender, envelope.plain) == (sender, plain)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Asia/Kolkata", "EDT4", "CEST-2"])
def test_the_zone_of_the_machine_plays_no_part(zone: str) -> None:
    code = "from service.kinds.text_classification.envelope import envelope_time as t; print(*(t(f'From a Thu Aug 22 13:17:22 {z}2002').isoformat() for z in ['', 'EDT ', 'CEST ', 'IST ']))"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"TZ": zone}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [f"2002-08-22T{hour}:17:22+00:00" for hour in (13, 17, 11, 13)]


@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1)), st.integers(-1439, 1439))
def test_what_asctime_writes_with_any_offset_is_read_back(moment: datetime, minutes: int) -> None:
    sign, size = "-" if minutes < 0 else "+", abs(minutes)
    line = f"From a@b.c {time.asctime(moment.timetuple())[:-4]}{sign}{size // 60:02}{size % 60:02} {moment.year}"
    assert envelope_time(line) == moment.replace(microsecond=0, tzinfo=UTC) - timedelta(minutes=minutes)


@given(st.binary(max_size=200))
def test_no_bytes_raise(rest: bytes) -> None:
    envelope_time(b"From " + rest)
    envelope_time(b"From a@b.c Thu Aug 22 13:17:22 " + rest + b" 2002")
