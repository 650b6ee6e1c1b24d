"""The release store, as the service reads it: immutable releases by id, and one pointer to the release that answers.

    releases/ID/    a release each; its files are read-only
    pointer.json    the champion, the one before it, and a token that grows by one with each change

The pointer is replaced in one step, so a reader sees the old one or the new one, whole. Only ``tasks.release.promote``
writes here.
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
    """A store that cannot be believed; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Pointer:
    """Who answers."""

    token: int
    """Grows by one with each change: of two changes that saw the same token only one can be made."""
    champion: str
    """The id of the release in service."""
    previous: str | None
    """The id of the release before it: what a rollback goes back to."""
    entry: dict[str, Any]
    """The history line of the change that made this pointer."""


def is_identity(text: object) -> bool:
    """Whether this may be the id of a release: twelve hexadecimal digits, and so never a path."""
    return isinstance(text, str) and _IDENTITY.fullmatch(text) is not None


def release_folder(store: Path, release: str) -> Path:
    """Where the release ``release`` lies, or would lie. Raises StoreError where that is no id (it may be a path)."""
    if not is_identity(release):
        raise StoreError(f"{release!r}: is no release id (twelve hexadecimal digits)")
    return store / RELEASES / release


def read_pointer(store: Path) -> Pointer | None:
    """The pointer of the store; None where nothing was promoted yet. Raises StoreError where it cannot be read."""
    path = store / POINTER
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    return parse_pointer(stored, path)


def parse_pointer(stored: Any, path: Path) -> Pointer:
    """A stored pointer, checked field by field. Raises StoreError where one is missing or of another kind."""
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
