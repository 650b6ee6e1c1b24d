"""What a user sees of a stage: its place, its own lines once, live progress on a terminal, and no talk of tools."""

from __future__ import annotations

import io
import re

from flows.console import StageConsole


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


DVC = b"""Running stage 'train':
> python -m tasks.model.train
WARNING: 'data/feedback.jsonl' is empty.
WARNING: it is late
reading
\rtrain:   0%|  | 0/2\rtrain:  50%|# | 1/2\rtrain: 100%|##| 2/2
WARNING: it is late
the teacher is good
Generating lock file 'dvc.lock'
Updating lock file 'dvc.lock'

To track the changes with git, run:

\tgit add dvc.lock

To enable auto staging, run:

\tdvc config core.autostage true
Use `dvc push` to send your updates to remote storage.
"""


def shown(out: io.StringIO) -> str:
    return re.sub(r"\d+\.\d s", "N s", out.getvalue())


def test_a_file_has_each_line_once_and_of_a_bar_its_end() -> None:
    out = io.StringIO()
    console = StageConsole(5, 14, "train", out=out)
    for at in range(0, len(DVC), 7):  # however it comes in pieces
        console.feed(DVC[at : at + 7])
    assert console.end() == "the teacher is good"
    console.close()
    assert shown(out) == (
        "stage 5 of 14: train\n  WARNING: it is late\n  reading\n  train: 100%|##| 2/2\n  the teacher is good, N s\n"
    )


def test_a_terminal_has_the_bar_while_it_moves() -> None:
    out = Terminal()
    console = StageConsole(1, 2, "train", out=out)
    assert out.getvalue() == "stage 1 of 2: train\n", "at once, for a stage may be silent for long"
    console.feed(b"\rtrain:  50%|# | 1/2")
    assert out.getvalue().endswith("\r\x1b[K  train:  50%|# | 1/2") or out.getvalue().endswith("\n  train:  50%|# | 1/2")
    console.feed(b"\rtrain: 100%|##| 2/2\nwell done")
    console.end()
    console.close()
    assert shown(out).endswith("\r\x1b[K  train: 100%|##| 2/2\n  well done, N s\n")


def test_a_file_names_the_stage_before_its_minutes() -> None:
    out = io.StringIO()
    StageConsole(5, 14, "train", out=out).feed(b"Running stage 'train':\n")
    assert out.getvalue() == "stage 5 of 14: train\n"


def test_the_first_line_says_what_is_left_of_the_run() -> None:
    out = io.StringIO()
    console = StageConsole(5, 13, "train", out=out, left="up to 4 min left")
    console.end()
    console.close()
    assert shown(out).splitlines()[0] == "stage 5 of 13: train, up to 4 min left"


def test_a_stage_that_changes_nothing_says_so() -> None:
    out = io.StringIO()
    console = StageConsole(2, 14, "validate", out=out)
    console.feed(b"Stage 'validate' didn't change, skipping\nData and pipelines are up to date.\n")
    assert console.end() == ""
    assert console.unchanged
    console.close("up to date")
    assert shown(out) == "stage 2 of 14: validate\n  up to date, N s\n"


def test_an_error_is_shown_whole_and_once() -> None:
    out = io.StringIO()
    console = StageConsole(1, 1, "work", 2, out)
    console.feed(
        b"Traceback (most recent call last):\n  File x\nValueError: bad\nERROR: failed to reproduce 'work': failed to run: x\n"
    )
    assert console.end() == "ValueError: bad"
    console.close("failed with exit code 1", hold=True)
    assert shown(out) == (
        "stage 1 of 1: work, try 2\n  Traceback (most recent call last):\n    File x\n  failed with exit code 1, N s\n"
    )
    assert list(console.last) == ["Traceback (most recent call last):", "  File x", "ValueError: bad"]
    other = io.StringIO()
    console = StageConsole(1, 1, "work", out=other)
    console.feed(b"ERROR: failed to reproduce 'work': missing data: a.csv\n")
    console.end()
    console.close("failed with exit code 255")
    assert "missing data: a.csv" in other.getvalue(), "an error of DVC's own is no talk"
