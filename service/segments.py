"""Segments: append-only files of checksummed records. One writer each, any number of readers, at any time.

A line is the CRC-32 of a record's JSON in eight hexadecimal digits, a blank, and the JSON. A segment's name sorts by
the time it was begun; it ends in ``.open`` while its writer holds it (flock) and in ``.log`` afterwards. Records
are numbered from 0 by ``n``: a gap is a loss. So whatever a kill or a disk does, a reader tells whole records from
broken ones, and knows how many are missing.
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
    """A name that sorts by now and is nobody else's."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(2)}"


def segments(folder: Path) -> list[Path]:
    """All segments of a folder, by the time they were begun; none where there is no folder."""
    try:
        return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=stem_of)
    except (FileNotFoundError, NotADirectoryError):
        return []


def stem_of(path: Path) -> str:
    """What a segment is called for as long as it lives, open or closed."""
    return path.stem


def encode(record: dict[str, Any]) -> bytes:
    """A record as one line; ``kind`` and ``n`` come first. Raises ValueError or TypeError for what JSON cannot hold."""
    ordered = {"kind": record["kind"], "n": record["n"], **record}
    data = json.dumps(ordered, separators=(",", ":"), allow_nan=False).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its line end; None where it is not whole."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        record = json.loads(line[9:])
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("n"), int) else None


def read(path: Path, start: int = 0) -> list[dict[str, Any]]:
    """The whole records of a segment with ``n`` from ``start`` on; a broken line, or a last one without its end, is left out.

    A segment that its writer closes meanwhile is found under its new name; one that is gone is empty.
    """
    found = []
    for line in _lines(path):
        number = number_of(line)
        if number is not None and number < start:
            continue
        record = decode(line)
        if record is not None and record["n"] >= start:
            found.append(record)
    return found


def number_of(line: bytes) -> int | None:
    """The number that a line gives itself, before it is decoded; None where it begins like no record of ours."""
    head = _HEAD.match(line)
    return None if head is None else int(head[1])


def find(folder: Path, identity: str) -> dict[str, Any] | None:
    """The answer's record of an id, whichever worker wrote it; None where there is none, or not yet."""
    matched = _IDENTITY.fullmatch(identity)
    if matched is None:
        return None
    for line in _lines(folder / f"{matched[1]}{OPEN}"):
        if number_of(line) == int(matched[2]):
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
    """A segment that this process writes. Raises OSError where the disk does not do as it is told."""

    def __init__(self, folder: Path, stem: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{stem}{OPEN}"
        if self.path.with_suffix(CLOSED).exists():  # closing this one would replace it
            raise FileExistsError(errno.EEXIST, f"{stem} is closed already")
        # Locked before it has its name: nobody can take it for the segment of a dead writer.
        born = folder / f".{stem}{NEW}"
        self._file = os.open(born, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            born.rename(self.path)
            _sync_folder(folder)
        except OSError:
            os.close(self._file)
            raise
        self._size = 0
        self._torn = False

    @property
    def is_empty(self) -> bool:
        return self._size == 0

    @property
    def is_there(self) -> bool:
        """Whether the file that is written is still the one that readers see."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def append(self, data: bytes) -> None:
        """All of ``data`` on the disk, or nothing of it and an OSError."""
        self._cut()
        self._torn = True
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError:
            self._cut()
            raise
        if not self.is_there:
            raise FileNotFoundError(errno.ENOENT, f"{self.path.name} is gone")
        self._size += len(data)
        self._torn = False

    def _cut(self) -> None:
        """Take away what an append that failed has left; where even that fails, the next one tries again."""
        if self._torn:
            os.ftruncate(self._file, self._size)
            self._torn = False

    def close(self) -> None:
        """Give it its last name and let go of it; an empty one goes."""
        try:
            if self.is_empty:
                self.path.unlink()
            else:
                self.path.rename(self.path.with_suffix(CLOSED))
        finally:
            os.close(self._file)


def _sync_folder(folder: Path) -> None:
    """A file's name is on the disk only when its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
