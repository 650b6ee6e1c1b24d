"""The rows of a CSV file (RFC 4180), one by one, with the number of the line that each begins in.

The standard library's parser is the one that keeps everything: pandas takes the first column for an index where rows are
longer than the header, cuts a field at NUL and joins rows by a stray quote; pyarrow ends at the first such row.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tasks.data.text_file import not_utf8, open_text

_CR = "\ud800"
"""Stands for a CR within a line, which the parser takes for a broken line end; no decoded text holds it."""
_FIELD = 2**31 - 1
"""Longest field, in characters; the parser's own limit is 131,072."""


class _Lines:
    """The lines of a file, counted, of which some can be read again."""

    def __init__(self, file: Iterator[str]) -> None:
        self._file = file
        self._waiting: deque[str] = deque()
        self.taken: list[str] = []
        """What was read since ``begin``."""
        self.marked = False
        self.first = 1
        """The line at which ``taken`` begins, from 1."""

    def begin(self) -> None:
        self.first += len(self.taken)
        self.taken.clear()

    def again(self, kept: int) -> None:
        """All but the first ``kept`` lines of ``taken`` will come once more."""
        self._waiting.extendleft(reversed(self.taken[kept:]))
        del self.taken[kept:]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._file)
        self.taken.append(line)
        if (byte := not_utf8(line)) is not None:
            number = self.first + len(self.taken) - 1
            mend = "save the file as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8"
            raise ValueError(f"line {number} is not UTF-8 (byte 0x{byte:02x}); {mend}")
        if "\r" in line.rstrip("\r\n"):
            self.marked = True
            return line.replace("\r", _CR, line.count("\r") - line.endswith("\r\n"))
        return line


def read_csv(
    path: Path, needed: Collection[str], check: Callable[[Collection[str]], None]
) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line number from 1, cells by column) of each row, or the reason why it cannot be read in place of the cells.

    A column that is not in the dictionary is missing in that row. The separator is the one of comma, semicolon and tab
    under which the header holds all ``needed`` columns (tab first for ``.tsv``). Blank lines are no rows. Fields beyond the
    header's are dropped if they are blank. ``check`` is given the header. Raises ValueError, and what ``open_text`` does.
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
    found: list[tuple[list[str], str]] = []
    for delimiter in "\t,;" if tab_first else ",;\t":
        row = next((row for row in _rows(lines, delimiter) if isinstance(row, str) or any(map(str.strip, row))), None)
        if row is None:
            raise EmptyTable
        if not isinstance(row, str):
            found.append((row, delimiter))
            if set(needed) <= set(row):
                break
        lines.again(0)
    if not found:
        raise ValueError(f"line {lines.first}, the header, has a quote that is not closed or not doubled")
    row, delimiter = found[-1] if set(needed) <= set(found[-1][0]) else found[0]
    if "\0" in "".join(row):
        raise ValueError("its header holds NUL; UTF-16 needs a byte order mark, or save the file as UTF-8")
    if twice := [name for name in row if name.strip() and row.count(name) > 1]:
        raise ValueError(f"the column {twice[0]!r} stands twice in the header; rename or remove one")
    return row, delimiter


class EmptyTable(Exception):
    """There is no header."""


def _rows(lines: _Lines, delimiter: str) -> Iterator[list[str] | str]:
    """Each row, or a reason. After a quote that does not match, the next line is taken for the begin of a row."""
    csv.field_size_limit(_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ValueError(f"the quote that opens in the row at line {lines.first} is never closed") from error
            lines.again(1)
            yield "quote_not_closed_or_not_doubled"
        else:
            yield [cell.replace(_CR, "\r") for cell in row] if lines.marked else row
