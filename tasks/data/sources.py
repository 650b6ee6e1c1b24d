"""Readers: one for each kind of source, all yielding the same two kinds of row.

A reader yields a ``Row`` for what it could read and a ``Rejected`` for what it could not, so that the numbers
add up. What makes the whole source unusable (missing, empty, of the wrong columns) is a ``StageError``.
"""

from __future__ import annotations

import mailbox
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.mail import parse_mail
from tasks.stage import StageError

FEEDBACK = "feedback"
"""The source group of messages that were answered in service and labelled by a reviewer."""
LABEL_WITHOUT_FILE = "label_without_file"
"""The reason of a row of a label table that matches no file: it is no message."""


@dataclass(frozen=True)
class Row:
    """One labelled message as its source gave it; ``label`` is None where the source gives none."""

    id: str
    received: datetime | None
    source: str
    label: str | None
    subject: str
    text: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Rejected:
    """What could not be read: where it stood and why. No text of it."""

    id: str
    source: str
    reason: str


def from_message(name: str, source: str, label: str | None, raw: bytes) -> Row | Rejected:
    """Parse one raw message (RFC 5322)."""
    if not raw.strip():
        return Rejected(name, source, "empty_file")
    mail = parse_mail(raw)
    return Row(name, mail.received, source, label, mail.subject, mail.text, mail.warnings)


def read_folder(root: Path, labels: Mapping[str, str], label_table: str | None) -> Iterator[Row | Rejected]:
    """Raw messages below ``root``: files of one message each, mboxes (``*.mbox``) and Maildirs.

    The source group is the first folder below ``root`` (or the mbox's name). The label is what ``labels`` maps
    the group to, else the group's name. The file ``label_table``, a path below ``root``, is no message.
    """
    if not root.is_dir():
        raise StageError(f"ingest.path = {root}: there is no such folder")
    found = False
    for name, source, raw in _walk(root, skip=root / label_table if label_table else None):
        found = True
        label = labels.get(source, source)
        if isinstance(raw, str):
            yield Rejected(name, source, raw)
        else:
            yield from_message(name, source, label, raw)
    if not found:
        raise StageError(f"ingest.path = {root}: the folder holds no message")


def _walk(root: Path, skip: Path | None) -> Iterator[tuple[str, str, bytes | str]]:
    """(name, group, raw bytes or the reason why they are not a message) of every file, sorted by name.

    Hidden files are not looked at, but for the folders of a Maildir++ (``.Spam/cur``).
    """
    for path in sorted(path for path in root.rglob("*") if path.is_file() and path != skip):
        relative = path.relative_to(root)
        maildir = path.parent.parent if _is_maildir(path.parent.parent) else None
        if path.name.startswith(".") or (maildir is None and any(part.startswith(".") for part in relative.parts)):
            continue
        top = (maildir.relative_to(root) if maildir else relative.parent).parts
        group = top[0].lstrip(".") if top else root.name
        if maildir is not None and path.parent.name == "tmp":
            yield str(relative), group, "maildir_not_delivered"
        elif _is_maildir(path.parent):
            yield str(relative), group, "maildir_index"
        else:
            yield from _read(path, str(relative), group)


def _is_maildir(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in ("cur", "new", "tmp"))


def _read(path: Path, name: str, group: str) -> Iterator[tuple[str, str, bytes | str]]:
    """One message of a file, or each of an mbox: known by its ending, or by a second envelope line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        yield name, group, f"unreadable: {error.strerror}"
        return
    is_box = path.suffix == ".mbox" or (raw.startswith(b"From ") and raw.count(b"\n\nFrom ") > 0 and path.suffix == "")
    if not is_box:
        yield name, group, raw
        return
    own = path.stem if path.parent.name == group or len(Path(name).parts) == 1 else group
    box = mailbox.mbox(path, create=False)
    try:
        keys = box.keys()
        if not keys:
            yield name, own, "mbox_without_messages"
        for key in keys:
            yield f"{name}#{key}", own, box.get_bytes(key, from_=True)
    finally:
        box.close()
