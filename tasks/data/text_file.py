"""A file of text lines: plain or gzip, in UTF-8, or in UTF-16 or UTF-32 where a byte order mark says so."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import cast

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with theirs
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"
_ESCAPED = re.compile("[\udc80-\udcff]")


@contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file with their ends: LF or CR LF, CR where the first line ends so, and nothing else (no U+2028).

    Compression and encoding are known by the content, and not by the name. Bytes that are not UTF-8 come as lone surrogates
    (PEP 383), see ``not_utf8``. Raises OSError, EOFError, zlib.error, UnicodeError, also while it is read.
    """
    with path.open("rb") as stored:
        raw = stored
        if stored.peek(2).startswith(_GZIP):
            raw = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stored)))
        start = raw.peek(4)
        encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
        with io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="") as text:
            yield _lines(text)


def _lines(text: Iterator[str]) -> Iterator[str]:
    """Python ends a line at each CR; one within a line of another kind is part of it."""
    first = next(text, "")
    if first.endswith("\r"):
        yield first
        yield from text
        return
    for line in chain([first] if first else [], text):
        while line.endswith("\r") and (more := next(text, "")):
            line += more
        yield line


def not_utf8(line: str) -> int | None:
    """The first byte of ``line`` that is not UTF-8, or None."""
    found = None if line.isascii() else _ESCAPED.search(line)
    return ord(found[0]) - 0xDC00 if found else None
