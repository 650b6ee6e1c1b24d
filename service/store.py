"""Read access to the release store: immutable releases by id, and a pointer to the champion.

    releases/ID/    one release; its files are read-only
    pointer.json    the champion, its predecessor, and a token that increases by one with each change

The pointer is replaced atomically, so a reader sees either the old or the new one. Only ``tasks.release.promote`` writes here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POINTER = "pointer.json"
RELEASES = "releases"
_IDENTITY = re.compile(r"[0-9a-f]{12}")


class StoreError(Exception):
    """An invalid store; the message names the file and the error."""


@dataclass(frozen=True)
class Pointer:
    """The pointer to the champion."""

    token: int
    """Increases by one with each change: of two changes based on the same token only one succeeds."""
    champion: str
    """The id of the release in service."""
    previous: str | None
    """The id of the previous champion, the target of a rollback."""
    entry: dict[str, Any]
    """The history entry of the change that wrote this pointer."""


def is_identity(text: object) -> bool:
    """Whether this has the format of a release id: twelve hexadecimal digits, so never a path."""
    return isinstance(text, str) and _IDENTITY.fullmatch(text) is not None


def release_folder(store: Path, release: str) -> Path:
    """The folder of ``release``, whether it exists or not. Raises StoreError if that is not an id (it may be a path)."""
    if not is_identity(release):
        raise StoreError(f"{release!r}: is no release id (twelve hexadecimal digits)")
    return store / RELEASES / release


def read_pointer(store: Path) -> Pointer | None:
    """The store's pointer; None before the first promotion. Raises StoreError if it cannot be read."""
    path = store / POINTER
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return parse_pointer(stored, path)


def parse_pointer(stored: Any, path: Path) -> Pointer:
    """Validate a stored pointer. Raises StoreError if a field is missing or invalid."""
    try:
        pointer = Pointer(stored["token"], stored["champion"], stored["previous"], stored["entry"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: {error} is missing") from error
    identities = [pointer.champion, *([pointer.previous] if pointer.previous is not None else [])]
    if type(pointer.token) is not int or pointer.token < 1:
        raise StoreError(f"{path}: token = {pointer.token!r}: expected a number from 1 on")
    if not isinstance(pointer.entry, dict):
        raise StoreError(f"{path}: entry = {pointer.entry!r}: expected an object")
    for identity in identities:
        if not is_identity(identity):
            raise StoreError(f"{path}: {identity!r}: is no release id (twelve hexadecimal digits)")
    return pointer
