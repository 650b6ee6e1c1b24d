"""Reader of folders of image files: PNG and JPEG of any size; the first folder below the root is the class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.kinds.image_classification.headers import Unreadable
from service.kinds.image_classification.images import decode
from tasks.data.sources import Rejected, Row
from tasks.data.tree import Entry, entries
from tasks.stage import StageError

FILE_BYTES = 2**26
"""A larger file is no single picture that anyone sends."""


def from_file(name: str, source: str, label: str | None, raw: bytes, file: str) -> Row | Rejected:
    """An image file as a row: decoded to see that it can be, kept as it is. Conversions that it needs are warnings."""
    try:
        _, conversions = decode(raw)
    except Unreadable as error:
        return Rejected(name, source, str(error), file)
    return Row(name, None, source, label, {"image": raw}, tuple(conversions), file)


def read_folder(root: Path, label_table: str | None) -> Iterator[Row | Rejected]:
    """The images below ``root``, and a rejected row for each file that is none; ``label_table`` below it is skipped.

    The label is the first folder below ``root``. Raises StageError where ``root`` is no folder, or holds hidden files only.
    """
    if not root.is_dir():
        raise StageError(f"ingest.path = {root}: there is no such folder")
    any_visible = False
    for entry in entries(root):
        path = root.joinpath(*entry.parts)
        if label_table and path == root / label_table:
            continue
        any_visible = any_visible or entry.reason not in ("hidden", "system_file")
        yield _read(path, entry)
    if not any_visible:
        raise StageError(f"ingest.path = {root}: the folder holds no image")


def _read(path: Path, entry: Entry) -> Row | Rejected:
    name = "/".join(entry.parts)
    if entry.reason:
        return Rejected(name, entry.group, entry.reason, name)
    try:
        if path.stat().st_size > FILE_BYTES:
            return Rejected(name, entry.group, "file_too_large", name)
        raw = path.read_bytes()
    except OSError as error:
        return Rejected(name, entry.group, f"unreadable: {error.strerror}", name)
    return from_file(name, entry.group, entry.group, raw, name)
