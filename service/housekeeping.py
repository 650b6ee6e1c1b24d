"""Housekeeping of a journal's folder: closes segments of dead writers, removes old ones.

Each worker does this. A file that fails, because it belongs to another user for example, does not stop the others.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from service.segments import CLOSED, NEW, OPEN, decode, segments, stem_of

log = logging.getLogger("restill.journal")


def run_housekeeping(folder: Path, keep_days: float | None) -> None:
    """Recover and prune ``folder``; ``keep_days`` None keeps segments for ever. Logs what was done and what failed."""
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
    """Close the segments of dead writers, truncated after the last complete record. Returns the segments' names."""
    recovered = []
    for path in [*folder.glob(f".*{NEW}"), *segments(folder)]:
        try:
            if path.suffix == NEW:
                _remove_if_old(path)
            elif path.suffix == OPEN and _close_if_abandoned(path):
                recovered.append(stem_of(path))
        except FileNotFoundError:  # its writer or another worker was faster
            continue
        except OSError as error:  # continue with the others
            log.warning("%s cannot be looked after: %s", path, error.strerror)
    return recovered


def _remove_if_old(path: Path) -> None:
    if time.time() - path.stat().st_mtime > 60:  # its writer died before renaming it; it is empty
        path.unlink()


def _close_if_abandoned(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(path.stat(), os.fstat(handle)):
            return False
        data = path.read_bytes()
        length = _whole_length(data)
        if length < len(data):
            os.ftruncate(handle, length)
            os.fsync(handle)
        path.rename(path.with_suffix(CLOSED))
    except BlockingIOError:  # its writer is alive
        return False
    finally:
        os.close(handle)
    return True


def _whole_length(data: bytes) -> int:
    """End of the last complete record. Broken lines before it stay: readers skip them."""
    end = data.rfind(b"\n") + 1
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if decode(data[start : end - 1]) is not None:
            return end
        end = start
    return 0


def prune(folder: Path, keep_days: float) -> int:
    """Remove closed segments last written more than ``keep_days`` ago. Returns their number."""
    cutoff = time.time() - keep_days * 86_400
    removed = 0
    for path in segments(folder):
        try:
            if path.suffix == CLOSED and path.stat().st_mtime < cutoff:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another worker was faster
            continue
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error.strerror)
    return removed
