"""Housekeeping of a journal's folder: what dead writers left is closed, what is old is removed.

Each worker does it. One file that cannot be looked after, of another user perhaps, does not keep the others from it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from service.segments import CLOSED, NEW, OPEN, decode, segments, stem_of

log = logging.getLogger("restill.journal")


def keep_house(folder: Path, keep_days: float | None) -> None:
    """Close and remove what is due; None keeps for ever. What is done, and what cannot be, is told in the log."""
    try:
        for stem in recover(folder):
            log.info("journal %s: closed %s, which its writer had left", folder.name, stem)
    except OSError as error:
        log.warning("journal %s: what dead writers left cannot be looked after: %s", folder.name, error.strerror)
    try:
        if keep_days is not None and (removed := prune(folder, keep_days)):
            log.info("journal %s: removed %d old segments", folder.name, removed)
    except OSError as error:
        log.warning("journal %s: old segments cannot be looked after: %s", folder.name, error.strerror)


def recover(folder: Path) -> list[str]:
    """Close what dead writers left, each cut behind its last whole record. Returns the names of the segments."""
    recovered = []
    for path in [*folder.glob(f".*{NEW}"), *segments(folder)]:
        try:
            if path.suffix == NEW:
                _remove_if_old(path)
            elif path.suffix == OPEN and _close_if_dead(path):
                recovered.append(stem_of(path))
        except FileNotFoundError:  # its writer, or another worker that recovers, was faster
            continue
        except OSError as error:  # the others are looked after all the same
            log.warning("%s cannot be looked after: %s", path, error.strerror)
    return recovered


def _remove_if_old(born: Path) -> None:
    if time.time() - born.stat().st_mtime > 60:  # its writer died before it got a name; there is nothing in it
        born.unlink()


def _close_if_dead(path: Path) -> bool:
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(path.stat(), os.fstat(file)):
            return False
        data = path.read_bytes()
        whole = _whole_length(data)
        if whole < len(data):
            os.ftruncate(file, whole)
            os.fsync(file)
        path.rename(path.with_suffix(CLOSED))
    except BlockingIOError:  # its writer lives
        return False
    finally:
        os.close(file)
    return True


def _whole_length(data: bytes) -> int:
    """Where the last whole record ends. Broken lines before it stay: they are skipped, and what follows is kept."""
    end = data.rfind(b"\n") + 1
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if decode(data[begin : end - 1]) is not None:
            return end
        end = begin
    return 0


def prune(folder: Path, keep_days: float) -> int:
    """Remove closed segments whose last record is older than ``keep_days``. Returns how many."""
    limit = time.time() - keep_days * 86_400
    removed = 0
    for path in segments(folder):
        try:
            if path.suffix == CLOSED and path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another worker was faster
            continue
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)
    return removed
