"""What a file holds: its bytes, unpacked within bounds, and why they are no message where they are none.

That is told by the first bytes (magic numbers); the name only makes a reason more exact. No library tells them: those of
PyPI guess by the name as well, or take a text that begins with ``BM`` for a picture.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import os
import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.data.mboxes import MESSAGE_BYTES, Data

MAPPED_BYTES = 2**20
"""Longer files are mapped into memory, not read."""

UNPACKED_BYTES = 2**26
UNPACKED_RATIO = 100
UNPACKED_MOST_BYTES = 2**32
"""A packed file may hold 64 MiB, or 100 times its size, and never more than 4 GiB. Mail shrinks to a third or a tenth,
what is made to fill disks to a thousandth."""

_HEAD_BYTES = 2**13
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_MAGIC = {
    "archive_unpack_it_first": (
        b"PK\3\4", b"PK\5\6", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\7", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x1f\x9d",
    ),
    "git_lfs_pointer": (b"version https://git-lfs.github.com/spec/",),
    "git_annex_pointer": (b"/annex/objects/",),
    "image": (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\1\0"),
    "pdf": (b"%PDF-",),
    "outlook_store": (b"!BDN",),
    "outlook_attachment": (b"\x78\x9f\x3e\x22",),
    "mail_index": (b"// <!-- <mdb:mork",),
    "box_of_another_kind": (b"\1\1\1\1\n", b"\1\1\1\1\r\n", b"BABYL OPTIONS:"),
}  # fmt: skip
_OLE = b"\xd0\xcf\x11\xe0"
_OUTLOOK = "__properties_version1.0".encode("utf-16-le")
_SYSTEM = re.compile(r"(?:ehthumbs(?:_vista)?|thumbs)\.db|desktop\.ini|\.ds_store|\._.*|\.directory|icon\r", re.I | re.S)
_INDEX = re.compile(r"dovecot.*|courier.*|maildirfolder|maildirsize|subscriptions|.*\.(?:msf|mab|snm|toc|idx)", re.I | re.S)
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LINK = re.compile(rb"(?:\.{1,2}/|/)?[^\s/]+(?:/[^\s/]+)+|\.{1,2}(?:/\.\.)*")
_LENGTH_LINE = re.compile(rb"\s*(\d{1,12})[ \t]*\r?\n")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def load(path: Path) -> Data:
    """The bytes of a file. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAPPED_BYTES:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return file.read(max(size, _HEAD_BYTES)) or b""  # files of the kernel say that they are empty


def unpack(data: Data) -> Data | str:
    """What a gzip, bzip2 or xz file holds, or the reason why it stays packed; ``data`` itself where it is none of them.

    Raises OSError where there is no room to unpack it.
    """
    opened = next((opened for magic, opened in _PACKED.items() if data[: len(magic)] == magic), None)
    if opened is None:
        return data
    bound = min(UNPACKED_MOST_BYTES, max(UNPACKED_BYTES, UNPACKED_RATIO * len(data)))
    with tempfile.SpooledTemporaryFile(MAPPED_BYTES) as held:
        try:
            with opened(io.BytesIO(data) if isinstance(data, bytes) else data) as packed:
                while piece := packed.read(MAPPED_BYTES):
                    if held.tell() + len(piece) > bound:
                        return "packed_too_much"
                    held.write(piece)
        except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
            if getattr(error, "errno", None):  # of the system, as of a disk that is full, and not of the file
                raise
            return "packed_broken"
        if held.tell() <= MAPPED_BYTES:
            held.seek(0)
            return held.read()
        held.flush()
        return mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ)


def as_utf8(data: Data) -> Data:
    """A text that begins with the byte order mark of UTF-16, as Windows programs save it, in UTF-8; others as they are."""
    if data[:2] not in _UTF16 or len(data) > 2 * MESSAGE_BYTES:
        return data
    return data[:].decode("utf-16", "replace").encode()


def of_apple_mail(data: Data) -> Data:
    """The message in an ``.emlx`` file: a line with its length stands before it, a property list behind it."""
    length = _LENGTH_LINE.match(data)
    return data[length.end() : length.end() + int(length[1])] if length else data


def system_file(name: str) -> bool:
    """Whether an operating system leaves files of this name."""
    return bool(_SYSTEM.fullmatch(name))


def by_magic(data: Data, name: str) -> str | None:
    """The reason why ``data`` is no message, where its first bytes tell."""
    for reason, magics in _MAGIC.items():
        if data[:50].startswith(magics):
            return reason
    if data[:4] != _OLE:
        return None
    if system_file(name):
        return "system_file"
    return "outlook_msg" if name.lower().endswith(".msg") or data.find(_OUTLOOK) >= 0 else "office_file"


def by_elimination(data: Data, name: str) -> str:
    """The reason for ``data`` that does not begin as a message does."""
    if system_file(name):
        return "system_file"
    if _INDEX.fullmatch(name):
        return "mail_index"
    head = data[:_HEAD_BYTES]
    if head[257:262] == b"ustar":  # tar
        return "archive_unpack_it_first"
    if _LINK.fullmatch(head):
        return "link_as_text"  # what git writes for a link where a file system has none
    controls = len(_CONTROLS.findall(head))
    return "binary" if controls > len(head) / 10 or b"\0" in head else "not_a_message"
