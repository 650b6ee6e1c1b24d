"""The release store, as it is written: add a release, move the pointer, keep the history.

Replacing ``pointer.json`` is the one moment in which a promotion happens. The pointer carries its whole history line,
so a process that dies behind that moment loses nothing: the next command appends the line to ``history.jsonl``. All
who write hold the lock of the store, and who wants to move the pointer says which token it saw: of two, one is fenced.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from service.release import ReleaseError, verify
from service.store import POINTER, RELEASES, Pointer, StoreError, read_pointer, release_folder
from tasks.stage import StageError

HISTORY = "history.jsonl"
Action = Literal["bootstrap", "promote", "rollback"]


class Fenced(StageError):
    """Somebody else moved the pointer since the caller looked: nothing was changed."""


def add(store: Path, folder: Path) -> str:
    """Copy the release in ``folder`` into the store; its id. Raises StageError where the release is not whole.

    The copy stands under its id only when it is whole and on the disk; a release that is there already is verified.
    """
    identity = _verified(folder)
    with _locked(store):
        target = release_folder(store, identity)
        for leftover in target.parent.glob(".*.tmp"):  # of an earlier process that died here
            shutil.rmtree(leftover)
        if target.exists():
            _verified(target)
            return identity
        temporary = target.with_name(f".{identity}.tmp")
        shutil.copytree(folder, temporary)
        if (copied := _verified(temporary)) != identity:
            shutil.rmtree(temporary)
            raise StageError(f"{folder}: it was {identity} and became {copied} while it was copied; try again")
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                path.chmod(0o444)
            _sync(path)
        _sync(temporary)
        temporary.rename(target)
        _sync(target.parent)
    return identity


def promote(store: Path, release: str, *, expected: int, who: str, why: str, gate: str | None) -> Pointer:
    """Make ``release``, which is in the store, the champion; ``gate`` names the report that says it may be.

    ``expected`` is the token that the caller saw (0 where there was no pointer). Raises Fenced where it is not the
    token any more. Where the release is the champion already, nothing is done: so a rerun ends like the first run.
    """
    with _locked(store):
        pointer = _repaired(store)
        if pointer is not None and pointer.champion == release:
            return pointer
        _fence(pointer, expected)
        action: Action = "bootstrap" if pointer is None else "promote"
        return _move(store, pointer, release, action, who=who, why=why, gate=gate)


def rollback(store: Path, *, expected: int, who: str, why: str) -> Pointer:
    """Make the previous release the champion, and the champion the previous one.

    Raises Fenced as ``promote`` does, and StageError where there is no previous release or it is not whole. The same
    rollback asked for again (same token, person and reason) is done already: the pointer it made is returned.
    """
    with _locked(store):
        pointer = _repaired(store)
        if pointer is not None and pointer.token == expected + 1:
            made = pointer.entry
            if (made.get("action"), made.get("who"), made.get("why")) == ("rollback", who, why):
                return pointer
        _fence(pointer, expected)
        if pointer is None or pointer.previous is None:
            raise StageError(f"{store / POINTER}: there is no previous release to go back to")
        return _move(store, pointer, pointer.previous, "rollback", who=who, why=why, gate=None)


def history(store: Path) -> list[dict[str, Any]]:
    """Every change of the pointer, oldest first: token, time, action, who, why, from, to, gate."""
    if not store.exists():
        return []
    with _locked(store):
        _repaired(store)
        return _whole_lines(store / HISTORY)[0]


def _fence(pointer: Pointer | None, expected: int) -> None:
    token = pointer.token if pointer is not None else 0
    if token != expected:
        by = f", by {pointer.entry.get('who')}: {pointer.champion}" if pointer is not None else ""
        raise Fenced(f"the pointer moved from token {expected} to token {token}{by}; nothing was changed, look again")


def _move(store: Path, pointer: Pointer | None, release: str, action: Action, **facts: str | None) -> Pointer:
    """Verify ``release``, then replace the pointer, then write the history."""
    if (identity := _verified(release_folder(store, release))) != release:
        raise StageError(f"{release_folder(store, release)}: holds the release {identity}")
    champion = pointer.champion if pointer is not None else None
    token = pointer.token + 1 if pointer is not None else 1
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    entry = {"token": token, "time": time, "action": action, **facts, "from": champion, "to": release}
    moved = Pointer(token, release, champion, entry)
    temporary = store / f".{POINTER}.tmp"
    _write(temporary, json.dumps(asdict(moved), indent=2) + "\n", os.O_TRUNC)
    temporary.replace(store / POINTER)  # here it happens
    _sync(store)
    _append(store, entry)
    return moved


def _repaired(store: Path) -> Pointer | None:
    """The pointer, after the history got what a process that died owed it: a half line cut, the last line written."""
    pointer = read_pointer(store)
    path = store / HISTORY
    entries, intact = _whole_lines(path)
    if path.exists() and path.stat().st_size > intact:
        os.truncate(path, intact)
    last = entries[-1]["token"] if entries else 0
    token = pointer.token if pointer is not None else 0
    if last > token:
        raise StageError(f"{path}: knows token {last}, {POINTER} is at {token}: an older pointer was put back; mend it by hand")
    if pointer is not None and last < token:
        _append(store, pointer.entry)
    return pointer


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """(entries, bytes that they take) of the history; a last line without its end was torn and is left out."""
    content = path.read_bytes() if path.exists() else b""
    intact = content.rfind(b"\n") + 1
    try:
        return [json.loads(line) for line in content[:intact].splitlines()], intact
    except ValueError as error:
        raise StageError(f"{path}: a line in its middle is broken ({error}): put it back from a copy") from error


def _append(store: Path, entry: dict[str, Any]) -> None:
    new = not (store / HISTORY).exists()
    _write(store / HISTORY, json.dumps(entry) + "\n", os.O_APPEND)
    if new:
        _sync(store)


def _write(path: Path, text: str, flag: int) -> None:
    """Write ``text`` and wait until the disk has it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        rest = text.encode()
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync(path: Path) -> None:
    """Wait until the disk has this file, or the names in this folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _verified(folder: Path) -> str:
    try:
        return verify(folder)
    except ReleaseError as error:
        raise StageError(str(error)) from error


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Hold the store's lock, which the kernel takes back from a process that dies; what cannot be read is a StageError."""
    (store / RELEASES).mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        except StoreError as error:
            raise StageError(str(error)) from error
