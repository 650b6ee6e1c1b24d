"""Segments: append-only files of checksummed records, each with one writer and any number of concurrent readers.

A line is the CRC-32 of a record's JSON in eight hexadecimal digits, a space, and the JSON. Segment names sort by creation
time; they end in ``.open`` while the writer holds the lock (flock) and in ``.log`` afterwards. Records are numbered from 0 by
``n``: a gap is a loss. So after a kill or a disk error, a reader can distinguish complete from broken records, and knows how
many are missing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

OPEN, CLOSED, NEW = ".open", ".log", ".new"
_STEM = r"\d{8}T\d{12}Z-[0-9a-f]{4}"
_NAME = re.compile(rf"({_STEM})\.(?:open|log)")
_IDENTITY = re.compile(rf"({_STEM})-(\d{{1,12}})")
_HEAD = re.compile(rb'[0-9a-f]{8} \{"kind":"[a-z]+","n":(\d+)[,}]')


def new_stem() -> str:
    """A unique name that sorts by the current time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(2)}"


def segments(folder: Path) -> list[Path]:
    """All segments of a folder by creation time; empty if there is no folder."""
    try:
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=stem_of)
    except (FileNotFoundError, NotADirectoryError):
        return []


def stem_of(path: Path) -> str:
    """The name of a segment without suffix, which is the same open and closed."""
    return path.stem


def encode(record: dict[str, Any]) -> bytes:
    """A record as one line, ``kind`` and ``n`` first. Raises ValueError or TypeError for values that JSON cannot represent."""
    ordered = {"kind": record["kind"], "n": record["n"], **record}
    data = json.dumps(ordered, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record in a line without its line end; None if it is broken."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        record = json.loads(line[9:])
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("n"), int) else None


def read(path: Path, start: int = 0) -> list[dict[str, Any]]:
    """The records of a segment with ``n`` from ``start`` on; broken lines, and a last one without line end, are skipped.

    A segment that is closed in the meantime is read under its new name; a removed one is empty.
    """
    records = []
    for line in _lines(path):
        number = number_of(line)
        if number is not None and number < start:
            continue
        record = decode(line)
        if record is not None and record["n"] >= start:
            records.append(record)
    return records


def number_of(line: bytes) -> int | None:
    """The ``n`` of a line without decoding it; None if it does not begin like a record."""
    match = _HEAD.match(line)
    return None if match is None else int(match[1])


def find(folder: Path, identity: str) -> dict[str, Any] | None:
    """The answer record with this id, from any worker; None if there is none (yet)."""
    match = _IDENTITY.fullmatch(identity)
    if match is None:
        return None
    for line in _lines(folder / f"{match[1]}{OPEN}"):
        if number_of(line) == int(match[2]):
            record = decode(line)
            if record is not None and record.get("id") == identity and record["kind"] == "answer":
                return record
    return None


def _lines(path: Path) -> Iterator[bytes]:
    for _ in range(2):
        for suffix in (OPEN, CLOSED):
            try:
                data = path.with_suffix(suffix).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield from data.split(b"\n")[:-1]
            return


class Segment:
    """A segment that this process writes. Methods raise OSError for disk errors."""

    def __init__(self, folder: Path, stem: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{stem}{OPEN}"
        if self.path.with_suffix(CLOSED).exists():  # closing the new one would replace it
            raise FileExistsError(errno.EEXIST, f"{stem} is closed already")
        # Locked before it is renamed, so that no worker takes it for the segment of a dead writer.
        unnamed = folder / f".{stem}{NEW}"
        self._file = os.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self.path)
            _sync_folder(folder)
        except OSError:
            os.close(self._file)
            raise
        self._size = 0
        self._may_be_torn = False

    @property
    def is_empty(self) -> bool:
        return self._size == 0

    @property
    def is_current(self) -> bool:
        """Whether readers still see the file that this process writes."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def append(self, data: bytes) -> None:
        """Write and sync all of ``data``, or raise OSError and keep none of it."""
        self._truncate()
        self._may_be_torn = True
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError:
            self._truncate()
            raise
        if not self.is_current:
            raise FileNotFoundError(errno.ENOENT, f"{self.path.name} is gone")
        self._size += len(data)
        self._may_be_torn = False

    def _truncate(self) -> None:
        """Remove the remains of a failed append; if that fails, the next append tries again."""
        if self._may_be_torn:
            os.ftruncate(self._file, self._size)
            self._may_be_torn = False

    def close(self) -> None:
        """Rename the segment to its closed name and release it; an empty one is removed."""
        try:
            if self.is_empty:
                self.path.unlink()
            else:
                self.path.rename(self.path.with_suffix(CLOSED))
        finally:
            os.close(self._file)


def _sync_folder(folder: Path) -> None:
    """Sync the folder: only then is a new or renamed file durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
