"""Parsing of mboxes: which files are one, and where each message in it begins and ends.

mbox has no single standard; this follows what its readers agree on. A message begins at an envelope line
(``envelope`` of the serving half) at the start of the file or after a blank line, with header fields, or nothing, after it.
Not every such line begins one:

* Where ``Content-Length`` leads exactly to the next envelope or the end of the file, it is trusted (mboxcl, mboxcl2).
* A mail within a MIME part stays within it: the boundary of the enclosing message is closed further down.
* A file named as one message (``.eml``) begins with its own envelope; what it quotes is older than itself.

Bodies lose one ``>`` of each line ``>From ``, ``>>From `` and so on, as mboxrd writes them. mboxo quotes ``From `` only, so
its ``>>From `` was typed by the sender; the two cannot be distinguished, and differ by that one ``>``. mboxcl2 quotes
nothing, and nothing is removed.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from service.kinds.text_classification.envelope import LINE_BYTES, read_envelope

Data = bytes | mmap.mmap
"""A file's bytes: in memory, or memory-mapped for a large file."""

MESSAGE_BYTES = 64 * 2**20
"""A longer message is rejected: providers allow 25 to 150 MB, and a parser needs several times the bytes."""

BLOCK_BYTES = 2**16
"""At most this much of a header block is searched."""

LOOK_AHEAD_BYTES = 2**20
"""How far after an envelope line the end of the enclosing multipart is searched for."""

_START = re.compile(rb"\s*(?:\xef\xbb\xbf\s*)*")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_MAIL_FIELD = re.compile(
    rb"""^(?:from|subject|sender|reply-to|received|return-path|message-id|mime-version|content-(?:type|transfer-encoding|length)
    |delivered-to|envelope-to|delivery-date|in-reply-to|errors-to|user-agent|newsgroups|dkim-signature|apparently-to
    |(?:x|list|resent|arc)-[!-9;-~]+)[ \t]*:""",
    re.I | re.M | re.X,
)
_FIRST_FIELD = re.compile(rb"(?:to|cc|bcc|date|status|path|references|precedence|organi[sz]ation)[ \t]*:", re.I)
"""Fields that occur in other files too (``date:`` in YAML): they count as mail only at the start of a text."""
_CONTENT_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*(\d{1,15})[ \t]*\r?$", re.I | re.M)
_BOUNDARY = re.compile(rb"""boundary\s*=\s*(?:"([^"\r\n]+)"|'?([^\s;"']+))""", re.I)
_NO_DATE = re.compile(rb"From (?:[^\s@]+@\S+|-)?\s*\Z")
_QUOTED = re.compile(rb"^>(>*From )", re.M)


@dataclass(frozen=True)
class Box:
    """An mbox, and the offset of its first message; data before that belong to no message."""

    data: Data
    begin: int
    one_expected: bool

    def spans(self) -> Iterator[tuple[int, int]]:
        """(begin, end) of each message."""
        begin = self.begin
        for following in _boundaries(self.data, begin, self.one_expected):
            yield begin, following
            begin = following
        yield begin, len(self.data)

    def messages(self) -> Iterator[bytes | None]:
        """Each message with its envelope line, without the box's quoting; None where it exceeds MESSAGE_BYTES."""
        for begin, end in self.spans():
            yield _message(self.data, begin, end) if end - begin <= MESSAGE_BYTES else None


def text_start(data: Data) -> int:
    """The offset after byte order marks and blank lines."""
    match = _START.match(data)
    return match.end() if match else 0


def begins_message(data: Data, start: int) -> bool:
    """Whether a message begins at ``start``: an envelope line, or a header field of mail before a blank line."""
    return _has_field(_block(data, start)) or _envelope_at(data, start) is not None


def find_box(data: Data, *, named_box: bool, one_expected: bool) -> Box | None:
    """The mbox in ``data``, or None. Detected by content: an envelope line at its start and another one.

    ``named_box``: the name says mbox (``.mbox``), so one message is enough, and the head may be cut off. ``one_expected``:
    the name says one message.
    """
    start = text_start(data)
    if not named_box and data.find(b"\nFrom ", start) < 0:
        return None
    if _envelope_at(data, start):
        several = named_box or next(_boundaries(data, start, one_expected), None) is not None
        return Box(data, start, one_expected) if several else None
    if not named_box:
        return None
    if begins_message(data, start):
        return Box(data, start, False)
    first = next(_boundaries(data, start, False), None)
    return None if first is None else Box(data, first, False)


def _boundaries(data: Data, begin: int, one_expected: bool) -> Iterator[int]:
    """The offset of each message after the one at ``begin``."""
    while (following := _next(data, begin, one_expected)) is not None:
        yield following
        begin = following


def _next(data: Data, begin: int, one_expected: bool) -> int | None:
    end = _end_by_length(data, begin)
    if end is not None and not (one_expected and end < len(data)):
        return end if end < len(data) else None
    own_envelope = _envelope_at(data, begin) if one_expected else None
    multipart_end: int | None = None
    at = begin
    while (at := data.find(b"\nFrom ", at) + 1) > 0:
        if data[at - 2 : at] != b"\n\n" and data[at - 3 : at] != b"\n\r\n":
            continue
        envelope = _envelope_at(data, at)
        if not envelope or (own_envelope and (not own_envelope.time or not envelope.time or envelope.time < own_envelope.time)):
            continue
        multipart_end = _multipart_end(data, begin, at) if multipart_end is None else multipart_end
        if at >= multipart_end:
            return at
    return None


@dataclass(frozen=True)
class _Envelope:
    time: datetime | None


def _envelope_at(data: Data, at: int) -> _Envelope | None:
    """The envelope line at ``at`` with a message after it.

    Lines without a date must be followed by a header field, and so must those whose sender is not one word: "From the log of
    ..." may be a sentence.
    """
    if data[at : at + 5] != b"From ":
        return None
    end = data.find(b"\n", at, at + LINE_BYTES + 2) + 1 or min(len(data), at + LINE_BYTES + 2)
    line = data[at:end]
    envelope = read_envelope(line)
    if envelope is None and not _NO_DATE.match(line):
        return None
    block = _block(data, end)
    if _has_field(block):
        return _Envelope(envelope.time if envelope else None)
    cut = end + len(block) == len(data) and len(block.split()) <= 1
    plain = envelope is not None and envelope.plain
    return _Envelope(envelope.time) if envelope and plain and (not block.strip() or cut or _FIELD.match(block)) else None


def _has_field(block: bytes) -> bool:
    block = block.partition(b"\0")[0]  # an archive may hold a message after the NUL
    return bool(_MAIL_FIELD.search(block) or _FIRST_FIELD.match(block))


def _block(data: Data, begin: int) -> bytes:
    """The header block at ``begin``, up to the first blank line."""
    if data[begin : begin + 1] == b"\n" or data[begin : begin + 2] == b"\r\n":
        return b""
    match = _BLANK_LINE.search(data, begin, begin + BLOCK_BYTES)
    return data[begin : match.start() + 1 if match else begin + BLOCK_BYTES]


def _end_by_length(data: Data, begin: int) -> int | None:
    """Where the message ends by its Content-Length; None unless the next one begins there, or the file ends."""
    block = _block(data, begin)
    length = _CONTENT_LENGTH.search(block)
    blank = _BLANK_LINE.match(data, begin + len(block) - 1) if length else None
    if not length or not blank:
        return None
    end = blank.end() + int(length[1])
    for _ in range(2):  # the length may not count the last line end, nor the blank line between messages
        if end < len(data) and data[end : end + 1] in b"\r\n":
            end = data.find(b"\n", end) + 1 or len(data)
    if end == len(data) or (end < len(data) and data[end - 1 : end] == b"\n" and _envelope_at(data, end)):
        return end
    return None


def _multipart_end(data: Data, begin: int, at: int) -> int:
    """Where the multipart message at ``begin`` ends; ``begin`` where it is not one, or has no end after ``at``."""
    declared = _BOUNDARY.search(_block(data, begin))
    if not declared:
        return begin
    boundary = declared[1] or declared[2]
    end = data.find(b"\n--" + boundary + b"--", begin, at + LOOK_AHEAD_BYTES)
    # If the boundary is declared again, this end belongs to a copy of the message, and this one was cut off.
    redeclared = re.compile(rb"""[='"]""" + re.escape(boundary)).search(data, begin + declared.end(), max(end, begin))
    return begin if redeclared else max(end, begin)


def _message(data: Data, begin: int, end: int) -> bytes:
    raw = data[begin:end]
    if end < len(data):  # the blank line before the next envelope belongs to the box
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    head = _BLANK_LINE.search(raw)
    body = head.end() if head else len(raw)
    if raw.find(b"\nFrom ", body - 1) >= 0 and _end_by_length(data, begin) == end:
        return raw
    return raw[:body] + _QUOTED.sub(rb"\1", raw[body:])
