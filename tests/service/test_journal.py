"""service/journal.py and service/segments.py: what was written is found again, whatever a kill or a disk does."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.housekeeping import prune, recover, run_housekeeping
from service.journal import Journal, JournalLimits, find, read, segments, stem_of
from service.segments import Segment, encode

QUICK = JournalLimits(flush_seconds=0.005, retry_seconds=0.02)


def answer(number: int) -> dict[str, Any]:
    return {"kind": "answer", "number": number, "score": 0.25}


def numbers(folder: Path) -> list[int]:
    return [record["number"] for path in segments(folder) for record in read(path)]


def test_records_are_numbered_found_and_rotated(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", JournalLimits(flush_seconds=0.005, segment_records=10))
    identities = [journal.append(answer(number)) for number in range(35)]
    assert journal.flush()
    files = segments(journal.folder)
    assert [len(read(path)) for path in files] == [10, 10, 10, 5]
    assert numbers(journal.folder) == list(range(35))
    assert [record["n"] for record in read(files[0], 7)] == [7, 8, 9]
    for number, identity in enumerate(identities):
        found = find(journal.folder, identity)
        assert found is not None
        assert (found["number"], found["id"]) == (number, identity)
    journal.close()
    assert [stem_of(path) for path in segments(journal.folder)] == [stem_of(path) for path in files]
    assert all(path.suffix == ".log" for path in segments(journal.folder))
    assert journal.lost == 0


@pytest.mark.parametrize("identity", ["", "x", "../../etc/passwd-0", "20260101T000000000000Z-abcd-0", "\u0661" * 40])
def test_an_id_that_is_none_is_not_found(tmp_path: Path, identity: str) -> None:
    assert find(tmp_path, identity) is None


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 12), st.data())
def test_a_cut_anywhere_keeps_every_whole_record_before_it(records: int, data: st.DataObject) -> None:
    lines = [encode({"kind": "answer", "n": n, "text": data.draw(st.text(max_size=20))}) for n in range(records)]
    cut = data.draw(st.integers(0, sum(map(len, lines))))
    whole = sum(sum(map(len, lines[: n + 1])) <= cut for n in range(records))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "20260101T000000000000Z-abcd.open"
        path.write_bytes(b"".join(lines)[:cut])
        assert [record["n"] for record in read(path)] == list(range(whole))
        assert recover(Path(name)) == [stem_of(path)]
        assert path.with_suffix(".log").read_bytes() == b"".join(lines[:whole])
        assert [record["n"] for record in read(path)] == list(range(whole)), "found under its new name"


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10), st.data())
def test_a_changed_byte_costs_the_records_it_touches_and_no_other(records: int, data: st.DataObject) -> None:
    lines = [encode({"kind": "answer", "n": n, "score": n / 7}) for n in range(records)]
    written = bytearray(b"".join(lines))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    ends = [sum(map(len, lines[: n + 1])) for n in range(records)]
    touched = next(n for n, end in enumerate(ends) if place < end)
    spoiled = {touched, touched + 1} if place == ends[touched] - 1 else {touched}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "20260101T000000000000Z-abcd.log"
        path.write_bytes(written)
        found = read(path)
    assert {record["n"] for record in found} >= set(range(records)) - spoiled
    for record in found:  # a CRC in capitals is the same number: the record it belongs to is whole
        assert record == {"kind": "answer", "n": record["n"], "score": record["n"] / 7}


def test_many_threads_get_each_an_id_of_their_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", JournalLimits(flush_seconds=0.002, segment_records=70))
    with ThreadPoolExecutor(8) as pool:
        identities = list(pool.map(lambda number: journal.append(answer(number)), range(1000)))
    journal.close()
    assert len(set(identities)) == 1000
    records = [record for path in segments(journal.folder) for record in read(path)]
    assert {record["id"]: record["number"] for record in records} == dict(zip(identities, range(1000), strict=True))
    for path in segments(journal.folder):
        assert [record["n"] for record in read(path)] == list(range(len(read(path)))), "in order, without a gap"


def test_a_segment_that_is_held_is_left_alone(tmp_path: Path) -> None:
    held = Segment(tmp_path, "20260101T000000000000Z-abcd")
    held.append(encode(answer(0) | {"n": 0}))
    assert recover(tmp_path) == []
    held.close()
    assert [path.suffix for path in segments(tmp_path)] == [".log"]


WRITER = """
import sys
from pathlib import Path
from service.journal import Journal, JournalLimits
journal = Journal(Path(sys.argv[1]), JournalLimits(flush_seconds=0.002, segment_records=50))
number = 0
while True:
    journal.append({"kind": "answer", "number": number, "score": 0.5})
    number += 1
    if number % 20 == 0:
        journal.flush()
        print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    rng = random.Random(3)
    folder = tmp_path / "journal"
    written: list[int] = []
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        flushed = int(process.stdout.readline())
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        flushed = max([flushed, *map(int, process.stdout.read().split())])
        process.wait()
        before, written = written, numbers(folder)
        new = written[len(before) :]
        assert new == list(range(len(new))), "in order, none missing, none twice"
        assert len(new) >= flushed
        left = [path for path in segments(folder) if path.suffix == ".open"]
        assert recover(folder) == [stem_of(path) for path in left]
        assert numbers(folder) == written
        for path in segments(folder):
            data = path.read_bytes()
            assert data.endswith(b"\n") or not data


def test_a_folder_that_vanishes_and_comes_back_costs_nothing_that_memory_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "journal"
    journal = Journal(folder, QUICK)
    journal.append(answer(0))
    assert journal.flush()
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    identities = [journal.append(answer(number)) for number in range(1, 6)]
    time.sleep(0.2)
    assert journal.lost == 0
    folder.unlink()
    assert journal.flush()
    assert numbers(folder) == [1, 2, 3, 4, 5]
    assert all(find(folder, identity) for identity in identities)
    journal.close()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "one line an episode"
    assert "written again; 0 records were lost" in caplog.text


def test_what_memory_cannot_hold_is_counted_and_leaves_a_gap(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    told: list[int] = []
    folder.write_text("a file in its place")
    journal = Journal(folder, JournalLimits(flush_seconds=0.005, retry_seconds=0.02, capacity=10, attempts=10_000), told.append)
    for number in range(25):
        journal.append(answer(number))
    assert journal.lost == 15 == sum(told)
    folder.unlink()
    assert journal.flush()
    journal.append(answer(25))
    journal.close()
    assert numbers(folder) == [*range(10), 25]
    assert [record["n"] for path in segments(folder) for record in read(path)][-2:] == [9, 25]


def test_what_cannot_be_written_for_long_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.write_text("a file in its place")
    journal = Journal(folder, JournalLimits(flush_seconds=0.002, retry_seconds=0.002, attempts=3))
    journal.append(answer(0))
    assert journal.flush()
    assert journal.lost == 1
    begun = time.monotonic()
    assert not journal.store({"kind": "feedback"}, timeout=5)
    assert time.monotonic() - begun < 5, "it is told, and does not have to wait"
    journal.close()


def test_a_record_that_is_no_json_is_lost_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", QUICK)
    journal.append(answer(0))
    journal.append({"kind": "answer", "number": float("nan")})
    journal.append({"kind": "answer", "number": object()})
    journal.append(answer(3))
    journal.close()
    assert numbers(journal.folder) == [0, 3]
    assert journal.lost == 2
    assert journal.append(answer(4)), "after the end it still gives an id"
    assert journal.lost == 3


LIMITED = """
import json, logging, resource, signal, sys, time
from pathlib import Path
from service.journal import Journal, JournalLimits, read, segments
logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write that would grow a file too far writes a part, then fails
folder = Path(sys.argv[1])
journal = Journal(folder, JournalLimits(flush_seconds=0.002, retry_seconds=0.02))
journal.append({"kind": "answer", "number": 0})
journal.flush()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
for number in range(1, 30):
    journal.append({"kind": "answer", "number": number})
time.sleep(0.3)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.append({"kind": "answer", "number": 30})
done = journal.flush()
journal.close()
print(json.dumps([done, journal.lost, sorted(r["number"] for p in segments(folder) for r in read(p))]))
"""


def test_a_file_that_may_not_grow_costs_nothing_and_leaves_no_torn_line(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "j")], capture_output=True, text=True, check=True)
    done, lost, found = json.loads(run.stdout)
    assert (done, lost) == (True, 0)
    assert found == list(range(31))
    assert run.stderr.count("ERROR") == 1
    for path in segments(tmp_path / "j"):
        assert path.read_bytes().count(b"\n") == len(read(path)), "no broken line is left between whole ones"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, where this user may mount one."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_costs_no_answer_and_is_left_behind(tiny_disk: Path) -> None:
    journal = Journal(
        tiny_disk / "journal", JournalLimits(flush_seconds=0.005, retry_seconds=0.02, capacity=50, attempts=10_000)
    )
    journal.append(answer(0))
    assert journal.flush()
    filler = tiny_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    slowest = 0.0
    for number in range(1, 201):
        begun = time.perf_counter()
        journal.append(answer(number) | {"filler": "x" * 500})
        slowest = max(slowest, time.perf_counter() - begun)
    assert slowest < 0.5
    time.sleep(0.2)
    assert journal.lost >= 100
    filler.unlink()
    assert journal.flush()
    journal.append(answer(201))
    journal.close()
    found = numbers(journal.folder)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 201)
    assert len(found) + journal.lost == 202, "each is found or counted"


def test_old_segments_go_and_young_ones_stay(tmp_path: Path) -> None:
    for stem, age_days in (("20260101T000000000000Z-aaaa", 40), ("20260102T000000000000Z-bbbb", 10)):
        path = tmp_path / f"{stem}.log"
        path.write_bytes(encode({"kind": "answer", "n": 0}))
        moment = time.time() - age_days * 86_400
        os.utime(path, (moment, moment))
    assert prune(tmp_path, 30) == 1
    assert [stem_of(path)[-4:] for path in segments(tmp_path)] == ["bbbb"]


def test_one_odd_file_does_not_keep_the_others_from_being_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".20260101T000000000000Z-aaaa.new").symlink_to("nowhere")  # as one that is renamed just now
    (tmp_path / "20260101T000000000001Z-aaaa.open").mkdir()  # refuses to be opened, as one of another user
    (tmp_path / "20260101T000000000002Z-aaaa.log").mkdir()
    left, old = tmp_path / "20260101T000000000003Z-aaaa.open", tmp_path / "20260101T000000000004Z-aaaa.log"
    for path in (left, old):
        path.write_bytes(encode(answer(0) | {"n": 0}))
    for path in (old, tmp_path / "20260101T000000000002Z-aaaa.log"):
        os.utime(path, (0, 0))
    run_housekeeping(tmp_path, 30)
    assert left.with_suffix(".log").exists()
    assert not old.exists()
    assert [record.levelname for record in caplog.records if "Is a directory" in record.getMessage()] == ["WARNING"] * 2

    def denied(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    old.write_bytes(encode(answer(0) | {"n": 0}))
    os.utime(old, (0, 0))
    monkeypatch.setattr("service.housekeeping.recover", denied)
    run_housekeeping(tmp_path, 30)
    assert not old.exists()
    assert "Permission denied" in caplog.text


def test_a_new_journal_closes_what_a_dead_one_left(tmp_path: Path) -> None:
    left = tmp_path / "20260101T000000000000Z-aaaa.open"
    left.write_bytes(encode(answer(0) | {"n": 0}) + b"torn")
    unnamed = tmp_path / ".20260101T000000000001Z-bbbb.new"
    unnamed.touch()
    os.utime(unnamed, (0, 0))
    journal = Journal(tmp_path, QUICK)
    deadline = time.monotonic() + 5
    while left.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    journal.close()
    assert numbers(tmp_path) == [0]
    assert left.with_suffix(".log").read_bytes().endswith(b"}\n")
    assert not unnamed.exists()
