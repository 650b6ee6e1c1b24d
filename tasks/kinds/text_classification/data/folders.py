"""Reader of folders of raw messages: files of one message each, mboxes and Maildirs, also compressed or behind links.

Each file becomes rows, or one rejected row with its reason; the rules are in ``docs/data.md``.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from tasks.data.sources import Rejected, Row
from tasks.data.tree import Entry, entries, in_utf8
from tasks.kinds.text_classification.data.contents import (
    apple_mail_message,
    as_utf8,
    load,
    reason_by_elimination,
    reason_by_magic,
    unpack,
)
from tasks.kinds.text_classification.data.mboxes import MESSAGE_BYTES, Data, begins_message, find_box, text_start
from tasks.kinds.text_classification.data.messages import from_message
from tasks.stage import StageError

_PACKED = re.compile(r"\.(?:gz|bz2|xz)\Z", re.I)
_BOX = re.compile(r"(?:.*\.)?(?:mbox|mbx)", re.I | re.S)
_ONE_MESSAGE = re.compile(r".*\.emlx?", re.I | re.S)
_NAME_IN_BOX = re.compile(r"(.+)#\d+", re.S)

Read = tuple[int | None, bytes | str]
"""The number within a box (None for a file of one message), and a raw message or the reason why there is none."""


def read_folder(root: Path, labels: Mapping[str, str], label_table: str | None) -> Iterator[Row | Rejected]:
    """The messages of all files below ``root``, and a rejected row for each file that holds none.

    The source group is the first folder below ``root``; for a box directly in ``root``, the box's name. The label is what
    ``labels`` maps the group to, else the group's name. The file ``label_table``, a path below ``root``, is skipped. Raises
    StageError where ``root`` is no folder, or holds hidden files only.
    """
    try:
        os.scandir(root).close()
    except OSError as error:
        reason = "it cannot be read" if isinstance(error, PermissionError) else "there is no such folder"
        raise StageError(f"ingest.path = {root}: {reason}") from error
    any_visible = False
    for entry in entries(root):
        path = root.joinpath(*entry.parts)
        if label_table and path == root / label_table:
            continue
        any_visible = any_visible or entry.reason not in ("hidden", "system_file")
        file = stored_name(path, entry)
        for number, raw in _read(path, entry):
            name = file if number is None else f"{file}#{number}"
            group = in_utf8(_box_name(path) if number is not None and len(entry.parts) == 1 else entry.group)
            label = _label(group, labels)
            if isinstance(raw, str):
                yield Rejected(name, group, raw, file)
            else:
                yield from_message(name, group, label, raw, file)
    if not any_visible:
        raise StageError(f"ingest.path = {root}: the folder holds no message")


def _label(group: str, labels: Mapping[str, str]) -> str:
    """The label of a group. macOS writes ``ü`` in a folder's name as two code points, a keyboard as one."""
    return labels.get(group) or labels.get(unicodedata.normalize("NFC", group), group)


def stored_name(path: Path, entry: Entry) -> str:
    """The name of a file in all rows: its path below the root.

    Where that is not UTF-8, holds control characters, or looks like a message of the box beside it (``box#1``), it is ``./``
    and the path with those bytes as ``%E9`` (RFC 3986): no other name begins so, so names stay unique.
    """
    name = "/".join(entry.parts)
    match = _NAME_IN_BOX.fullmatch(entry.parts[-1])
    if match and os.access(path.with_name(match[1]), os.F_OK):
        return f"./{quote(os.fsencode(name))}"
    return in_utf8(name, "./")


def _box_name(path: Path) -> str:
    return Path(_PACKED.sub("", path.name)).stem


def _read(path: Path, entry: Entry) -> Iterator[Read]:
    """The content of one file; it is not opened where the entry has a reason."""
    if entry.reason:
        yield None, entry.reason
        return
    try:
        data = unpack(load(path))
    except OSError as error:
        yield None, f"unreadable: {error.strerror}"
        return
    if isinstance(data, str):
        yield None, data
    else:
        name = _PACKED.sub("", entry.parts[-1])
        data = as_utf8(data)
        yield from _messages(apple_mail_message(data) if name.lower().endswith(".emlx") else data, name, entry)


def _messages(data: Data, name: str, entry: Entry) -> Iterator[Read]:
    start = text_start(data)
    named_box = bool(_BOX.fullmatch(name))
    reason = "empty_file" if start == len(data) else reason_by_magic(data, name)
    box = None
    if not reason and not entry.one_message:
        box = find_box(data, named_box=named_box, one_expected=bool(_ONE_MESSAGE.fullmatch(name)))
    if box:
        if box.begin > start:
            yield None, "mbox_head_cut"
        for number, raw in enumerate(box.messages()):
            yield number, "message_too_large" if raw is None else raw
    elif not reason and begins_message(data, start):
        yield None, data[:] if len(data) <= MESSAGE_BYTES else "message_too_large"
    elif entry.index and reason in (None, "empty_file"):
        yield None, "maildir_index"
    else:
        reason = reason or reason_by_elimination(data, name)
        yield None, "mbox_without_messages" if named_box and reason == "not_a_message" else reason
