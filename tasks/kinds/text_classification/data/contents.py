"""The content of a file: its bytes, decompressed within limits, and the reason where it holds no message.

The type is detected by the first bytes (magic numbers); the name only refines a reason. No library does this: those on PyPI
guess by the name as well, or take a text that begins with ``BM`` for an image.
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

from tasks.data.tree import is_system_file
from tasks.kinds.text_classification.data.mboxes import MESSAGE_BYTES, Data

MAPPED_BYTES = 2**20
"""Longer files are memory-mapped, not read."""

UNPACKED_BYTES = 2**26
UNPACKED_RATIO = 100
UNPACKED_MOST_BYTES = 2**32
"""A compressed file may hold 64 MiB, or 100 times its size, but never more than 4 GiB. Mail compresses to a third or a tenth,
a decompression bomb to a thousandth.
"""

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
        return file.read(max(size, _HEAD_BYTES)) or b""  # files of the kernel report a size of 0


def unpack(data: Data) -> Data | str:
    """The content of a gzip, bzip2 or xz file, or the reason why it stays packed; other ``data`` as it is.

    Raises OSError where there is no room to unpack it.
    """
    open_packed = next((open_packed for magic, open_packed in _PACKED.items() if data[: len(magic)] == magic), None)
    if open_packed is None:
        return data
    bound = min(UNPACKED_MOST_BYTES, max(UNPACKED_BYTES, UNPACKED_RATIO * len(data)))
    with tempfile.SpooledTemporaryFile(MAPPED_BYTES) as unpacked:
        try:
            with open_packed(io.BytesIO(data) if isinstance(data, bytes) else data) as packed:
                while chunk := packed.read(MAPPED_BYTES):
                    if unpacked.tell() + len(chunk) > bound:
                        return "packed_too_much"
                    unpacked.write(chunk)
        except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
            if getattr(error, "errno", None):  # an error of the system, such as a full disk, not of the file
                raise
            return "packed_broken"
        if unpacked.tell() <= MAPPED_BYTES:
            unpacked.seek(0)
            return unpacked.read()
        unpacked.flush()
        return mmap.mmap(unpacked.fileno(), 0, access=mmap.ACCESS_READ)


def as_utf8(data: Data) -> Data:
    """Text with a UTF-16 byte order mark, as Windows programs save it, converted to UTF-8; other data as they are."""
    if data[:2] not in _UTF16 or len(data) > 2 * MESSAGE_BYTES:
        return data
    return data[:].decode("utf-16", "replace").encode()


def apple_mail_message(data: Data) -> Data:
    """The message in an ``.emlx`` file: it follows a line with its length and precedes a property list."""
    length = _LENGTH_LINE.match(data)
    return data[length.end() : length.end() + int(length[1])] if length else data


def reason_by_magic(data: Data, name: str) -> str | None:
    """The reason why ``data`` is no message, where its first bytes show that."""
    for reason, magics in _MAGIC.items():
        if data[:50].startswith(magics):
            return reason
    if data[:4] != _OLE:
        return None
    if is_system_file(name):
        return "system_file"
    return "outlook_msg" if name.lower().endswith(".msg") or data.find(_OUTLOOK) >= 0 else "office_file"


def reason_by_elimination(data: Data, name: str) -> str:
    """The reason for ``data`` that does not begin like a message."""
    if is_system_file(name):
        return "system_file"
    if _INDEX.fullmatch(name):
        return "mail_index"
    head = data[:_HEAD_BYTES]
    if head[257:262] == b"ustar":  # tar
        return "archive_unpack_it_first"
    if _LINK.fullmatch(head):
        return "link_as_text"  # what git writes for a link on file systems without links
    controls = len(_CONTROLS.findall(head))
    return "binary" if controls > len(head) / 10 or b"\0" in head else "not_a_message"
