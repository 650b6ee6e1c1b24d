"""Reading of text lines: plain or gzip, in UTF-8, or in UTF-16 or UTF-32 with a byte order mark."""

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
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"
_ESCAPED = re.compile("[\udc80-\udcff]")


@contextmanager
def open_text(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file with their line ends: LF or CR LF, CR if the first line ends so, and nothing else (no U+2028).

    Compression and encoding are detected by content, not by name. Bytes that are not UTF-8 become lone surrogates (PEP 383),
    see ``not_utf8``. Raises OSError, EOFError, zlib.error, UnicodeError, also while reading.
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
    """The lines without splits at a CR within a line, where Python ends one too."""
    first = next(text, "")
    if first.endswith("\r"):
        yield first
        yield from text
        return
    for line in chain([first] if first else [], text):
        while line.endswith("\r") and (continuation := next(text, "")):
            line += continuation
        yield line


def not_utf8(line: str) -> int | None:
    """The first byte of ``line`` that is not UTF-8, or None."""
    match = None if line.isascii() else _ESCAPED.search(line)
    return ord(match[0]) - 0xDC00 if match else None
