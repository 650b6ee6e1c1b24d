"""What a user sees of the stages of a run: which of how many, its progress, its own lines, its last word and its seconds.

A progress bar is live on a terminal, and one line, its end, in a file. What DVC says around a stage is left out; the
stage's last line waits for the seconds, so that no line stands twice.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import deque
from typing import TextIO

LAST_LINES = 15
UNCHANGED = ("didn't change, skipping", "is cached - skipping run")
"""What DVC says of a stage that has nothing to do."""
AROUND = (
    "Running stage '", "> ", "Stage '", "Verifying data sources in stage", "Generating lock file", "Updating lock file",
    "To track the changes", "\tgit add", "To enable auto staging", "\tdvc config", "Use `dvc push`",
    "Data and pipelines are up to date",
)  # fmt: skip
"""How the lines begin that are DVC's own talk. Its errors and warnings are shown, but for the one that we say ourselves."""
EMPTY_FILE = re.compile(r"WARNING: '.*' is empty\.")
"""As feedback is at first; of a source that is empty the stage says more."""
STAGE_FAILED = "': failed to run: "
EXITED = re.compile(r"exited with (-?\d+)$")
"""How DVC ends what it says of a stage that failed."""
CLEAR = "\r\x1b[K"


class StageConsole:
    """The lines of one stage, as they come in pieces; ``number`` of ``total``, and what is ``left`` of the run."""

    def __init__(self, number: int, total: int, name: str, attempt: int = 1, out: TextIO | None = None, left: str = "") -> None:
        self.out = out or sys.stderr
        self.live = self.out.isatty()
        self.head = f"stage {number} of {total}: {name}" + (f", try {attempt}" if attempt > 1 else "")
        self.head += f", {left}" if left else ""
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.unchanged = False
        self.exited: int | None = None
        """The exit code of the stage itself, where it failed; negative: the signal that ended it."""
        self._rest = b""
        self._held = ""
        self._warned: set[str] = set()
        self._begun = False
        self._bar = False
        self._start = time.monotonic()
        if self.live:
            self._begin()

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the stage's output."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(_last_state(line))
        bar = _last_state(self._rest)
        if self.live and b"\r" in self._rest and bar:
            self._clear()
            self.out.write("  " + bar[: shutil.get_terminal_size().columns - 3])
            self.out.flush()
            self._bar = True

    def end(self) -> str:
        """The stage's process has ended: its own last line, which ``close`` will show."""
        if self._rest:
            self._line(_last_state(self._rest))
            self._rest = b""
        self._clear()
        return self._held

    def close(self, word: str = "", hold: bool = False) -> None:
        """Show how the stage ended, in ``word`` or in its own last line, and in how many seconds.

        ``hold``: the last line is left for whoever says why the run ended.
        """
        if word and self._held and not hold:
            self._show(self._held)
        seconds = f"{time.monotonic() - self._start:.1f} s"
        self._show(", ".join(filter(None, (word or self._held, seconds))))

    def _line(self, text: str) -> None:
        self.unchanged |= any(words in text for words in UNCHANGED)
        if text.startswith("Running stage '"):
            self._begin()  # in a file too it is said before the minutes that the stage takes, not after them
        if STAGE_FAILED in text and (exited := EXITED.search(text)):
            self.exited = int(exited[1])
        if not text or text.startswith(AROUND) or STAGE_FAILED in text or EMPTY_FILE.fullmatch(text):
            return
        warning = text.startswith("WARNING: ")
        if warning and text in self._warned:  # DVC says it at each look at the graph
            return
        self.last.append(text)
        if warning:
            self._warned.add(text)
            self._show(text)
            return
        if self._held:
            self._show(self._held)
        self._held = text

    def _show(self, text: str) -> None:
        self._begin()
        self._clear()
        self.out.write(f"  {text}\n")
        self.out.flush()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.out.write(f"{self.head}\n")
            self.out.flush()

    def _clear(self) -> None:
        if self._bar:
            self.out.write(CLEAR)
            self._bar = False


def _last_state(line: bytes) -> str:
    """What is left to see of a line that a progress bar has written over and over."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace").rstrip()
