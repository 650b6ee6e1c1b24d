"""The rows of a CSV file (RFC 4180), each with the number of its first line.

Only the standard library's parser keeps everything: pandas takes the first column for an index where rows are longer than the
header, cuts a field at NUL and joins rows by a stray quote; pyarrow stops at the first such row.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tasks.data.text_file import not_utf8, open_text

_CR = "\ud800"
"""Replaces a CR within a line, which the parser takes for a broken line end; decoded text never holds it."""
_FIELD = 2**31 - 1
"""Longest field, in characters; the parser's own limit is 131,072."""


class _Lines:
    """An iterator over the lines of a file that counts them and can push lines back."""

    def __init__(self, file: Iterator[str]) -> None:
        self._file = file
        self._pushed_back: deque[str] = deque()
        self.consumed: list[str] = []
        """The lines returned since ``begin_row``."""
        self.has_inner_cr = False
        self.first = 1
        """The number of the first line in ``consumed``, from 1."""

    def begin_row(self) -> None:
        self.first += len(self.consumed)
        self.consumed.clear()

    def push_back(self, keep: int) -> None:
        """Push back all but the first ``keep`` lines of ``consumed``."""
        self._pushed_back.extendleft(reversed(self.consumed[keep:]))
        del self.consumed[keep:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._pushed_back.popleft() if self._pushed_back else next(self._file)
        self.consumed.append(line)
        if (byte := not_utf8(line)) is not None:
            number = self.first + len(self.consumed) - 1
            fix = "save the file as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8"
            raise ValueError(f"line {number} is not UTF-8 (byte 0x{byte:02x}); {fix}")
        if "\r" in line.rstrip("\r\n"):
            self.has_inner_cr = True
            return line.replace("\r", _CR, line.count("\r") - line.endswith("\r\n"))
        return line


def read_csv(
    path: Path, needed: Collection[str], check: Callable[[Collection[str]], None]
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line number from 1, cells by column) of each row, or the reason why it cannot be read in place of the cells.

    A column missing from the dictionary is missing in that row. The separator is the one of comma, semicolon and tab under
    which the header holds all ``needed`` columns (tab first for ``.tsv``). Blank lines are skipped. Fields beyond the
    header's are dropped if they are blank. ``check`` is called with the header. Raises ValueError, and what ``open_text``
    does.
    """
    with open_text(path) as file:
        lines = _Lines(file)
        header, delimiter = _header(lines, needed, tab_first=".tsv" in path.name.lower())
        check(header)
        for row in _rows(lines, delimiter):
            if isinstance(row, str):
                yield lines.first, row
            elif any(cell.strip() for cell in row[len(header) :]):
                yield lines.first, "more_fields_than_header"
            elif len(row) > 1 or (row and row[0].strip()):
                yield lines.first, dict(zip(header, row, strict=False))


def _header(lines: _Lines, needed: Collection[str], tab_first: bool) -> tuple[list[str], str]:
    candidates: list[tuple[list[str], str]] = []
    for delimiter in "\t,;" if tab_first else ",;\t":
        row = next((row for row in _rows(lines, delimiter) if isinstance(row, str) or any(map(str.strip, row))), None)
        if row is None:
            raise EmptyTable
        if not isinstance(row, str):
            candidates.append((row, delimiter))
            if set(needed) <= set(row):
                break
        lines.push_back(0)
    if not candidates:
        raise ValueError(f"line {lines.first}, the header, has a quote that is not closed or not doubled")
    row, delimiter = candidates[-1] if set(needed) <= set(candidates[-1][0]) else candidates[0]
    if "\0" in "".join(row):
        raise ValueError("its header holds NUL; UTF-16 needs a byte order mark, or save the file as UTF-8")
    if duplicates := [name for name in row if name.strip() and row.count(name) > 1]:
        raise ValueError(f"the column {duplicates[0]!r} stands twice in the header; rename or remove one")
    return row, delimiter


class EmptyTable(Exception):
    """The file has no header."""


def _rows(lines: _Lines, delimiter: str) -> Iterator[list[str] | str]:
    """Each row, or a reason. After an unmatched quote the next line is taken for the start of a row."""
    csv.field_size_limit(_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ValueError(f"the quote that opens in the row at line {lines.first} is never closed") from error
            lines.push_back(1)
            yield "quote_not_closed_or_not_doubled"
        else:
            yield [cell.replace(_CR, "\r") for cell in row] if lines.has_inner_cr else row
