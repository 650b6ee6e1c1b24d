"""The structure of a message, read from bytes that may break every rule of it.

Header fields and bodies (RFC 5322, 2.2), parts (RFC 2046, 5.1), transfer encodings (RFC 2045, 6) and parameters (RFC 2231).
Nothing here raises: what is broken is read as a mail program would show it, and told as a warning. Cost is linear in the
bytes: parts within parts are followed ``DEPTH`` deep, and ``PARTS`` of one message are read.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote_to_bytes

from service.envelope import read_envelope

HEADER_BYTES = 2000
"""What is read of one header field: dates and parameters are parsed by patterns that long fields would slow down."""
DEPTH = 20
PARTS = 500

_KNOWN = re.compile(
    rb"^(?:from|to|cc|bcc|subject|date|mime-version|received|reply-to|return-path|sender|references|status|priority|importance"
    rb"|precedence|organization|comments|keywords|user-agent|(?:content|message|x|list|resent|in-reply|delivered|envelope|errors"
    rb"|thread|dkim|arc|authentication|disposition|domainkey|mail|newsgroups|original|auto|feedback)-[!-9;-~]*)[ \t]*:",
    re.I | re.M,
)
"""Fields that mail has. A line among them that is no field is junk; a block without any of them is no header."""
_ENVELOPES = re.compile(rb"(?:>*From [^\n]*(?:\n|\Z)|\xef\xbb\xbf|[ \t\r\n]+)+")
_NO_FIELD = re.compile(rb"^(?![!-9;-~]+[ \t]*:|[ \t]|\r?$)[^\n]*\n?", re.M)
_MARKED = re.compile(rb"^\xef\xbb\xbf", re.M)
_READ = re.compile(rb"^(subject|date|received|content-[\w-]+)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.I | re.M)
_FOLD = re.compile(rb"\r?\n[ \t]*")
_ENVELOPE = re.compile(rb">*From ")
_TYPE = re.compile(rb"\s*([\w!#$&^.+-]+)\s*/\s*([\w!#$&^.+-]+)")
_PARAMETER = re.compile(rb"""(?:^|[;\s])([\w-]+)(?:\*(\d{1,3}))?(\*)?\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;\s]*))""")
_FOUND = re.compile(rb"^--(\S[^\r\n]{0,200}?)[ \t]*\r?\n(?=content-[\w-]+[ \t]*:)", re.I | re.M)
_OPENED = re.compile(rb"\s*--(\S[^\r\n]{0,200}?)[ \t]*\r?\n")
_CLOSED = re.compile(rb"^--(\S[^\r\n]{0,200}?)--[ \t]*\r?$", re.M)
_DELIMITER_REST = re.compile(rb"(--)?[ \t]*\r?(?:\n|\Z)")
_TOKEN = re.compile(rb"[a-z][\w-]*|\d+bit")
_NO_BASE64 = re.compile(
    rb"^[ \t]*\S+[ \t]+\S[^\n]*"
    rb"|^(?:[A-Za-z0-9+/=\t ]*[^\sA-Za-z0-9+/=]){3}[^\n]*"
    rb"|^[^A-Za-z0-9+/=\n]*[^\sA-Za-z0-9+/=][^A-Za-z0-9+/=\n]*$",
    re.M,
)
"""A line that looks like prose, or like a ruled line."""
_NO_DIGITS = bytes(sorted(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")))
_UNPRINTABLE = bytes(range(9)) + bytes(range(14, 32)) + bytes(range(127, 256))


@dataclass(frozen=True)
class Part:
    """One part of a message, or the message: the fields that are read, in order (names in lower case), and the body."""

    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    warnings: tuple[str, ...]

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that name, unfolded."""
        return next(self.all(name), None)

    def all(self, name: bytes) -> Iterator[bytes]:
        """The values of all fields of that name, unfolded."""
        return (_FOLD.sub(b" ", value).strip() for field, value in self.fields if field == name)

    @cached_property
    def content_type(self) -> str:
        """``type/subtype`` in lower case; what is missing or unreadable is text/plain (RFC 2045, 5.2)."""
        match = _TYPE.match(self.first(b"content-type") or b"")
        return b"/".join(match.groups()).decode("latin-1").lower() if match else "text/plain"

    @property
    def is_attachment(self) -> bool:
        return (self.first(b"content-disposition") or b"").strip(b" \t\"'")[:10].lower() == b"attachment"

    def parameter(self, name: str, field: bytes = b"content-type") -> str | None:
        """The parameter of the field, its pieces joined and decoded (RFC 2231)."""
        pieces = []
        for key, number, extended, quoted, bare in _PARAMETER.findall(self.first(field) or b""):
            if key.lower() == name.encode():
                value = re.sub(rb"\\(.)", rb"\1", quoted) if quoted else bare
                if extended:
                    value = unquote_to_bytes(value.rpartition(b"'")[2] if number in (b"", b"0") else value)
                if not number:
                    return value.decode("latin-1")
                pieces.append((int(number), value))
        return b"".join(value for _, value in sorted(pieces)).decode("latin-1") if pieces else None


def read_part(raw: bytes, top: bool = False) -> Part:
    """Split the header from the body. ``top``: a message, and no part of one: blank lines may come before its header."""
    raw = _plain_bytes(raw) if top else raw.removeprefix(codecs.BOM_UTF8)
    stop = _header_end(raw)
    if not _KNOWN.search(raw, 0, stop):
        return Part((), raw.partition(b"\n")[2] if stop == 0 else raw, ())
    if _NO_FIELD.search(raw, 0, stop):
        return _broken_header(raw, stop)
    fields, warnings = _fields(raw[:stop])
    return Part(fields, raw[stop:].partition(b"\n")[2], warnings)


def _header_end(raw: bytes) -> int:
    """Where the first empty line begins, or all of it."""
    if raw.startswith((b"\n", b"\r\n")):
        return 0
    ends = [found + 1 for blank in (b"\n\n", b"\n\r\n") if (found := raw.find(blank)) >= 0]
    return min(ends, default=len(raw))


def _fields(head: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[str, ...]]:
    """The fields that are ever asked for, cut to ``HEADER_BYTES``."""
    found = [(name.lower(), value) for name, value in _READ.findall(head)]
    cut = ("header_cut",) if any(len(value) > HEADER_BYTES for _, value in found) else ()
    return tuple((name, value[:HEADER_BYTES]) for name, value in found), cut


def _broken_header(raw: bytes, stop: int) -> Part:
    """A header with lines that are no fields. Those among fields are left out; behind the last field the body begins.

    Where the body is encoded, it cannot begin with such a line, which then is left out too.
    """
    if _MARKED.search(raw, 0, stop):
        return read_part(_MARKED.sub(b"", raw[:stop]) + raw[stop:])
    last_known = max(match.start() for match in _KNOWN.finditer(raw, 0, stop))
    junk = [line for line in _NO_FIELD.finditer(raw, 0, stop) if not _ENVELOPE.match(line[0])]
    late = next((line.start() for line in junk if line.start() > last_known), None)
    head = _NO_FIELD.sub(b"", raw[: stop if late is None else late])
    fields, cut = _fields(head)
    part = Part(fields, b"", cut)
    if late is not None and not part.content_type.startswith("multipart/") and encoding_of(part) != "base64":
        return Part(fields, raw[late:], (*cut, "header_not_ended"))
    return Part(fields, raw[stop:].partition(b"\n")[2], (*cut, "header_without_colon") if junk else cut)


def _plain_bytes(raw: bytes) -> bytes:
    """The message as ASCII and line feeds from its first field on: no byte order mark, no UTF-16, no blank lines before it."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")
    begin = _ENVELOPES.match(raw)
    text = raw[begin.end() :] if begin else raw
    if read_envelope(raw[:HEADER_BYTES].lstrip(b"\xef\xbb\xbf").partition(b"\n")[0]):
        return text if _KNOWN.search(text, 0, HEADER_BYTES) else raw.partition(b"\n")[2]
    return text if _KNOWN.search(text, 0, HEADER_BYTES) else raw


def split_parts(part: Part) -> tuple[list[bytes], str | None]:
    """The parts of a multipart, and what was wrong with its boundary: one that is not found is looked for in the body."""
    boundary = part.parameter("boundary")
    if boundary and (parts := _between(part.body, boundary.encode("latin-1", "replace").rstrip())):
        return parts, None
    found = _FOUND.search(part.body) or _CLOSED.search(part.body) or _OPENED.match(part.body)
    if found and (parts := _between(part.body, found[1])):
        return parts, "boundary_wrong"
    return [part.body], "boundary_missing"


def _between(body: bytes, boundary: bytes) -> list[bytes]:
    """What stands between the delimiters, the rest of a last part that is not closed too; ``PARTS`` and one more at most."""
    parts: list[bytes] = []
    start = None
    for line, end, closes in _delimiters(body, b"--" + boundary):
        if start is not None:
            parts.append(body[start:line])
        start = None if closes else end
        if closes or len(parts) > PARTS:
            return parts
    return [*parts, body[start:]] if start is not None else parts


def _delimiters(body: bytes, dashed: bytes) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether it is the closing one) of each line of ``body`` that is the delimiter ``dashed``."""
    here = body.find(dashed)  # as every message has a boundary of its own, a pattern for each would be compiled once a message
    while here >= 0:
        rest = _DELIMITER_REST.match(body, here + len(dashed))
        if rest and (here == 0 or body[here - 1] == 10):
            yield here, rest.end(), rest[1] is not None
        here = body.find(dashed, max(here + 1, rest.end() if rest else 0))


def encoding_of(part: Part) -> str:
    """The transfer encoding without its decorations (quotes, comments, a semicolon), in lower case; else 8bit."""
    token = _TOKEN.search((part.first(b"content-transfer-encoding") or b"").lower())
    name = token[0].decode().replace("_", "-").removeprefix("x-") if token else "8bit"
    return {"base-64": "base64", "b64": "base64", "quotedprintable": "quoted-printable", "uue": "uuencode"}.get(name, name)


def decoded_body(part: Part) -> tuple[bytes, str | None]:
    """The body without its transfer encoding, and what was wrong with that."""
    encoding = encoding_of(part)
    if encoding == "base64":
        return _base64(part.body)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(part.body), None
    if encoding == "uuencode":
        return _uuencoded(part.body)
    return part.body, None if encoding in ("7bit", "8bit", "binary") else "transfer_encoding_unknown"


def _base64(body: bytes) -> tuple[bytes, str | None]:
    """Base64 in one or several padded pieces. Text behind it, which lists append, stays; a body that is none stays as it is."""
    end = next((line.start() for line in _NO_BASE64.finditer(body) if not _is_text(_pieces(line[0])[0])), len(body))
    coded, tail = body[:end], body[end:]
    if tail and not coded.strip():
        return body, "base64_wrong"
    data, cut = _pieces(coded)
    warning = "base64_cut" if cut else "base64_mixed" if tail.strip() else None
    return data + b"\n" + tail if tail else data, warning


def _pieces(coded: bytes) -> tuple[bytes, bool]:
    """All that the base64 digits of ``coded`` say, and whether some of them said nothing."""
    pieces, cut = [], False
    for piece in re.findall(rb"[A-Za-z0-9+/]+", coded.translate(None, _NO_DIGITS)):
        if len(piece) % 4 == 1:
            cut, piece = True, piece[:-1]
        pieces.append(binascii.a2b_base64(piece + b"=" * (-len(piece) % 4)))
    return b"".join(pieces), cut


def _is_text(data: bytes) -> bool:
    """A line of base64 with blanks in it decodes to text; prose, taken for base64, does not."""
    return len(data) > 2 and len(data.translate(None, _UNPRINTABLE)) > 0.85 * len(data)


def _uuencoded(body: bytes) -> tuple[bytes, str | None]:
    lines, warning = [], None
    for line in body.splitlines():
        if not line or line.startswith(b"begin ") or line in (b"end", b"`", b" "):
            continue
        length = (line[0] - 32) & 63
        try:
            lines.append(binascii.a2b_uu(line[: (length * 4 + 5) // 3]))  # some encoders miscount, and pad
        except binascii.Error:
            warning = "uuencode_broken"
    return b"".join(lines), warning
