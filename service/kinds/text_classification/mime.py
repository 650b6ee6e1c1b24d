"""A lenient MIME parser for malformed messages.

Header fields and bodies (RFC 5322, 2.2), parts (RFC 2046, 5.1), transfer encodings (RFC 2045, 6) and parameters (RFC 2231).
Nothing here raises: malformed input is read as a mail program would show it, with a warning. The cost is linear in the bytes:
parts are read to a depth of ``DEPTH``, and at most ``PARTS`` per message.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote_to_bytes

from service.kinds.text_classification.envelope import read_envelope

HEADER_BYTES = 2000
"""Longest value of a header field that is read: long fields would slow down the patterns for dates and parameters."""
DEPTH = 20
PARTS = 500

_KNOWN_FIELD = re.compile(
    rb"^(?:from|to|cc|bcc|subject|date|mime-version|received|reply-to|return-path|sender|references|status|priority|importance"
    rb"|precedence|organization|comments|keywords|user-agent|(?:content|message|x|list|resent|in-reply|delivered|envelope|errors"
    rb"|thread|dkim|arc|authentication|disposition|domainkey|mail|newsgroups|original|auto|feedback)-[!-9;-~]*)[ \t]*:",
    re.I | re.M,
)
"""Known mail fields. Other lines among them are junk; a block without any of them is not a header."""
_ENVELOPES = re.compile(rb"(?:>*From [^\n]*(?:\n|\Z)|\xef\xbb\xbf|[ \t\r\n]+)+")
_NOT_FIELD = re.compile(rb"^(?![!-9;-~]+[ \t]*:|[ \t]|\r?$)[^\n]*\n?", re.M)
_LINE_BOM = re.compile(rb"^\xef\xbb\xbf", re.M)
_RELEVANT_FIELD = re.compile(rb"^(subject|date|received|content-[\w-]+)[ \t]*:[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)", re.I | re.M)
_FOLD = re.compile(rb"\r?\n[ \t]*")
_ENVELOPE = re.compile(rb">*From ")
_TYPE = re.compile(rb"\s*([\w!#$&^.+-]+)\s*/\s*([\w!#$&^.+-]+)")
_PARAMETER = re.compile(rb"""(?:^|[;\s])([\w-]+)(?:\*(\d{1,3}))?(\*)?\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;\s]*))""")
_CONTENT_DELIMITER = re.compile(rb"^--(\S[^\r\n]{0,200}?)[ \t]*\r?\n(?=content-[\w-]+[ \t]*:)", re.I | re.M)
_FIRST_DELIMITER = re.compile(rb"\s*--(\S[^\r\n]{0,200}?)[ \t]*\r?\n")
_CLOSE_DELIMITER = re.compile(rb"^--(\S[^\r\n]{0,200}?)--[ \t]*\r?$", re.M)
_DELIMITER_REST = re.compile(rb"(--)?[ \t]*\r?(?:\n|\Z)")
_TOKEN = re.compile(rb"[a-z][\w-]*|\d+bit")
_NOT_BASE64_LINE = re.compile(
    rb"^[ \t]*\S+[ \t]+\S[^\n]*"
    rb"|^(?:[A-Za-z0-9+/=\t ]*[^\sA-Za-z0-9+/=]){3}[^\n]*"
    rb"|^[^A-Za-z0-9+/=\n]*[^\sA-Za-z0-9+/=][^A-Za-z0-9+/=\n]*$",
    re.M,
)
"""A line that looks like prose or a horizontal rule."""
_NOT_BASE64_BYTES = bytes(sorted(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")))
_UNPRINTABLE = bytes(range(9)) + bytes(range(14, 32)) + bytes(range(127, 256))


@dataclass(frozen=True)
class Part:
    """A message or one of its parts: the relevant fields in order (names in lower case), and the body."""

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
        """``type/subtype`` in lower case; text/plain if missing or invalid (RFC 2045, 5.2)."""
        match = _TYPE.match(self.first(b"content-type") or b"")
        return b"/".join(match.groups()).decode("latin-1").lower() if match else "text/plain"

    @property
    def is_attachment(self) -> bool:
        return (self.first(b"content-disposition") or b"").strip(b" \t\"'")[:10].lower() == b"attachment"

    def parameter(self, name: str, field: bytes = b"content-type") -> str | None:
        """The value of a parameter of the field; continuations are joined and decoded (RFC 2231)."""
        pieces = []
        for key, number, extended, quoted, unquoted in _PARAMETER.findall(self.first(field) or b""):
            if key.lower() == name.encode():
                value = re.sub(rb"\\(.)", rb"\1", quoted) if quoted else unquoted
                if extended:
                    value = unquote_to_bytes(value.rpartition(b"'")[2] if number in (b"", b"0") else value)
                if not number:
                    return value.decode("latin-1")
                pieces.append((int(number), value))
        return b"".join(value for _, value in sorted(pieces)).decode("latin-1") if pieces else None


def read_part(raw: bytes, top: bool = False) -> Part:
    """Split header and body. ``top``: a message rather than a part of one: blank lines may precede its header."""
    raw = _normalise_message(raw) if top else raw.removeprefix(codecs.BOM_UTF8)
    stop = _header_end(raw)
    if not _KNOWN_FIELD.search(raw, 0, stop):
        return Part((), raw.partition(b"\n")[2] if stop == 0 else raw, ())
    if _NOT_FIELD.search(raw, 0, stop):
        return _broken_header(raw, stop)
    fields, warnings = _fields(raw[:stop])
    return Part(fields, raw[stop:].partition(b"\n")[2], warnings)


def _header_end(raw: bytes) -> int:
    """Position of the first empty line, or the length of ``raw``."""
    if raw.startswith((b"\n", b"\r\n")):
        return 0
    ends = [position + 1 for blank in (b"\n\n", b"\n\r\n") if (position := raw.find(blank)) >= 0]
    return min(ends, default=len(raw))


def _fields(head: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[str, ...]]:
    """The relevant fields, cut to ``HEADER_BYTES``, and warnings."""
    fields = [(name.lower(), value) for name, value in _RELEVANT_FIELD.findall(head)]
    cut = ("header_cut",) if any(len(value) > HEADER_BYTES for _, value in fields) else ()
    return tuple((name, value[:HEADER_BYTES]) for name, value in fields), cut


def _broken_header(raw: bytes, stop: int) -> Part:
    """A header with lines that are not fields. Those between fields are skipped; after the last field, they begin the body.

    An encoded body cannot begin with such a line, so there the lines are skipped too.
    """
    if _LINE_BOM.search(raw, 0, stop):
        return read_part(_LINE_BOM.sub(b"", raw[:stop]) + raw[stop:])
    last_known = max(match.start() for match in _KNOWN_FIELD.finditer(raw, 0, stop))
    invalid_lines = [line for line in _NOT_FIELD.finditer(raw, 0, stop) if not _ENVELOPE.match(line[0])]
    body_start = next((line.start() for line in invalid_lines if line.start() > last_known), None)
    head = _NOT_FIELD.sub(b"", raw[: stop if body_start is None else body_start])
    fields, warnings = _fields(head)
    part = Part(fields, b"", warnings)
    if body_start is not None and not part.content_type.startswith("multipart/") and encoding_of(part) != "base64":
        return Part(fields, raw[body_start:], (*warnings, "header_not_ended"))
    return Part(fields, raw[stop:].partition(b"\n")[2], (*warnings, "header_without_colon") if invalid_lines else warnings)


def _normalise_message(raw: bytes) -> bytes:
    """The message from its first field: without byte order mark, UTF-16, lone carriage returns and leading blank lines."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode("utf-8", "replace")
    if b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")
    preamble = _ENVELOPES.match(raw)
    text = raw[preamble.end() :] if preamble else raw
    if read_envelope(raw[:HEADER_BYTES].lstrip(b"\xef\xbb\xbf").partition(b"\n")[0]):
        return text if _KNOWN_FIELD.search(text, 0, HEADER_BYTES) else raw.partition(b"\n")[2]
    return text if _KNOWN_FIELD.search(text, 0, HEADER_BYTES) else raw


def split_parts(part: Part) -> tuple[list[bytes], str | None]:
    """The parts of a multipart, and a warning. If the declared boundary does not occur, it is guessed from the body."""
    boundary = part.parameter("boundary")
    if boundary and (parts := _split_at(part.body, boundary.encode("latin-1", "replace").rstrip())):
        return parts, None
    match = _CONTENT_DELIMITER.search(part.body) or _CLOSE_DELIMITER.search(part.body) or _FIRST_DELIMITER.match(part.body)
    if match and (parts := _split_at(part.body, match[1])):
        return parts, "boundary_wrong"
    return [part.body], "boundary_missing"


def _split_at(body: bytes, boundary: bytes) -> list[bytes]:
    """The parts between delimiters, including a last one without a close delimiter; at most ``PARTS`` + 1."""
    parts: list[bytes] = []
    start = None
    for begin, end, is_closing in _delimiters(body, b"--" + boundary):
        if start is not None:
            parts.append(body[start:begin])
        start = None if is_closing else end
        if is_closing or len(parts) > PARTS:
            return parts
    return [*parts, body[start:]] if start is not None else parts


def _delimiters(body: bytes, dashed: bytes) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, whether it is the close delimiter) of each delimiter line ``dashed`` in ``body``."""
    position = body.find(dashed)  # no pattern, which would be compiled anew for the boundary of every message
    while position >= 0:
        rest = _DELIMITER_REST.match(body, position + len(dashed))
        if rest and (position == 0 or body[position - 1] == 10):
            yield position, rest.end(), rest[1] is not None
        position = body.find(dashed, max(position + 1, rest.end() if rest else 0))


def encoding_of(part: Part) -> str:
    """The transfer encoding in lower case, without quotes, comments or a semicolon; 8bit if missing."""
    token = _TOKEN.search((part.first(b"content-transfer-encoding") or b"").lower())
    name = token[0].decode().replace("_", "-").removeprefix("x-") if token else "8bit"
    return {"base-64": "base64", "b64": "base64", "quotedprintable": "quoted-printable", "uue": "uuencode"}.get(name, name)


def decoded_body(part: Part) -> tuple[bytes, str | None]:
    """The body decoded from its transfer encoding, and a warning."""
    encoding = encoding_of(part)
    if encoding == "base64":
        return _decode_base64_body(part.body)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(part.body), None
    if encoding == "uuencode":
        return _decode_uuencoded(part.body)
    return part.body, None if encoding in ("7bit", "8bit", "binary") else "transfer_encoding_unknown"


def _decode_base64_body(body: bytes) -> tuple[bytes, str | None]:
    """Decode base64 in one or more padded pieces. Text after it, as appended by lists, and a body without base64 are kept."""
    end = next(
        (line.start() for line in _NOT_BASE64_LINE.finditer(body) if not _is_text(_decode_base64(line[0])[0])), len(body)
    )
    encoded, tail = body[:end], body[end:]
    if tail and not encoded.strip():
        return body, "base64_wrong"
    data, is_truncated = _decode_base64(encoded)
    warning = "base64_cut" if is_truncated else "base64_mixed" if tail.strip() else None
    return data + b"\n" + tail if tail else data, warning


def _decode_base64(encoded: bytes) -> tuple[bytes, bool]:
    """Decode the base64 digits in ``encoded``. Returns the data, and whether an incomplete group was dropped."""
    pieces, is_truncated = [], False
    for piece in re.findall(rb"[A-Za-z0-9+/]+", encoded.translate(None, _NOT_BASE64_BYTES)):
        if len(piece) % 4 == 1:
            is_truncated, piece = True, piece[:-1]
        pieces.append(binascii.a2b_base64(piece + b"=" * (-len(piece) % 4)))
    return b"".join(pieces), is_truncated


def _is_text(data: bytes) -> bool:
    """Whether decoded data is text: a base64 line with blanks decodes to text, prose does not."""
    return len(data) > 2 and len(data.translate(None, _UNPRINTABLE)) > 0.85 * len(data)


def _decode_uuencoded(body: bytes) -> tuple[bytes, str | None]:
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
