"""Parses a raw message into subject, text and time of arrival.

``parse_mail`` never raises: real mail declares wrong charsets and violates its encodings. It reads what a mail program would
show, and returns errors as warnings. The module ``mime`` parses the structure, ``service.charset`` decodes bytes.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from service.charset import codec_of, decode
from service.kinds.text_classification.envelope import envelope_time
from service.kinds.text_classification.html import LOOKS_LIKE_HTML, visible_text
from service.kinds.text_classification.mime import DEPTH, HEADER_BYTES, PARTS, Part, decoded_body, read_part, split_parts
from service.kinds.text_classification.text import PART

YEARS = range(1970, 2200)
"""Plausible years of a received time; others come from false headers and cannot be stored."""

HTML_FORMS = 2
"""HTML alternatives of one text that are tried, from the last: a mail has one, and each costs parsing a page."""

_ENCODED_WORD = re.compile(rb"=\?([^?\s]+)\?([bBqQ])\?([^?]*(?:\?(?!=)[^?]*)*?)(?:\?=|\Z)")
"""An encoded word (RFC 2047); may contain blanks or be cut off at the end."""
_ENVELOPE_LINE = re.compile(rb"\A\xef?\xbb?\xbf?\s*>?(From [^\r\n]*)")
_MARKUP = re.compile(r"<[^<>]{0,200}>")
_HTML_NAME = re.compile(r"\.(?:html?|xhtml)\b", re.I)
_TEXT_NAME = re.compile(r"\.(?:txt|text|md|html?|xhtml)\b", re.I)


@dataclass(frozen=True)
class Mail:
    """One parsed message: decoded subject and text, received time, and warnings.

    ``text`` holds the parts that a mail program shows, separated by ``PART`` of the module ``text``; HTML parts are unchanged.
    """

    subject: str
    text: str
    received: datetime | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Leaf:
    """A part without subparts: its content type, its text, and whether it is an attachment."""

    kind: str
    text: str
    is_attachment: bool


def parse_mail(raw: bytes) -> Mail:
    """Parse one message, with or without an mbox envelope line, from its raw bytes."""
    warnings: list[str] = []
    message = read_part(raw, top=True)
    leaves = _displayed_leaves(_Reader(warnings).leaves(message, 0))
    text = PART.join(leaf.text.strip() for leaf in leaves if leaf.text.strip())
    if any(leaf.is_attachment for leaf in leaves):
        warnings.append("text_from_attachment")
    subject = _plain(decode_header(message.first(b"subject") or b"", warnings))
    received = _received_time(raw, message, warnings)
    return Mail(" ".join(subject.split()), text, received, tuple(dict.fromkeys([*message.warnings, *warnings])))


def decode_header(value: bytes, warnings: list[str]) -> str:
    """Decode an unfolded header field: encoded words (RFC 2047), and bytes of any charset between them."""
    pieces: list[tuple[bytes, str | None]] = []
    position = 0
    for word in _ENCODED_WORD.finditer(value):
        gap, charset = value[position : word.start()], word[1].decode("latin-1")
        data = _word_bytes(word[2], word[3])
        if gap.strip() or data is None or not pieces or pieces[-1][1] is None:
            pieces.append((gap, None))  # blanks between two encoded words are ignored (RFC 2047, 6.2)
        if data is None:
            warnings.append("encoded_word_broken")
            pieces.append((word[0], None))
        elif pieces and pieces[-1][1] is not None and codec_of(pieces[-1][1]) == codec_of(charset):
            pieces[-1] = (pieces[-1][0] + data, charset)  # a character may be split between two words
        else:
            pieces.append((data, charset))
        position = word.end()
    pieces.append((value[position:], None))
    return "".join(_decode_text(data, charset, False, warnings) for data, charset in pieces if data)


def _word_bytes(encoding: bytes, payload: bytes) -> bytes | None:
    if encoding in b"qQ":
        return binascii.a2b_qp(payload, header=True)
    digits = b"".join(payload.split()).rstrip(b"=")
    if len(digits) % 4 == 1 or re.search(rb"[^A-Za-z0-9+/]", digits):
        return None
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _decode_text(data: bytes, charset: str | None, markup: bool, warnings: list[str]) -> str:
    text, warning = decode(data, charset, markup)
    if warning:
        warnings.append(warning)
    return text


class _Reader:
    """Reads the parts of one message; nested parts share its limit on the number of parts."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._parts = 0

    def leaves(self, part: Part, depth: int) -> list[_Leaf]:
        """The displayed texts and the attachments of ``part``, in order."""
        self._parts += 1
        if self._parts > PARTS:
            self._warnings.append("mime_too_many_parts")
            return []
        kind = part.content_type
        if depth >= DEPTH and kind.startswith(("multipart/", "message/")):
            self._warnings.append("mime_too_deep")
            return [_Leaf("text/plain", _plain(_decode_text(part.body, None, False, self._warnings)), False)]
        if kind.startswith("multipart/"):
            return self._multipart(part, kind, depth)
        if kind in ("message/rfc822", "message/global", "message/news"):
            return self._message(part, depth)
        return self._leaf(part, kind)

    def _multipart(self, part: Part, kind: str, depth: int) -> list[_Leaf]:
        body, encoding_warning = decoded_body(part)  # RFC 2045, 6.4, allows no encoding here, but some mail has one
        children, boundary_warning = split_parts(Part(part.fields, body, ()))
        self._warnings.extend(filter(None, (encoding_warning, boundary_warning)))
        child_leaves = [self._child(child, depth) for child in children]
        return (
            _alternative(child_leaves)
            if kind == "multipart/alternative"
            else [leaf for leaves in child_leaves for leaf in leaves]
        )

    def _child(self, raw: bytes, depth: int) -> list[_Leaf]:
        child = read_part(raw)
        self._warnings.extend(child.warnings)
        return self.leaves(child, depth + 1)

    def _message(self, part: Part, depth: int) -> list[_Leaf]:
        """An embedded message: its subject is shown above its text."""
        body, encoding_warning = decoded_body(part)
        inner = read_part(body, top=True)
        self._warnings.extend(filter(None, (encoding_warning, *inner.warnings)))
        subject = _plain(decode_header(inner.first(b"subject") or b"", self._warnings))
        leaves = self.leaves(inner, depth + 1)
        return [_Leaf("text/plain", subject, False), *leaves] if subject.strip() else leaves

    def _leaf(self, part: Part, kind: str) -> list[_Leaf]:
        name = part.parameter("filename", b"content-disposition") or part.parameter("name") or ""
        is_text = kind.startswith("text/") or kind in ("message/delivery-status", "application/xhtml+xml")
        is_attachment = part.is_attachment or not is_text
        if not is_text and not (kind.startswith("application/") and _TEXT_NAME.search(name)):
            return []
        data, encoding_warning = decoded_body(part)
        is_html = kind in ("text/html", "application/xhtml+xml") or (not is_text and bool(_HTML_NAME.search(name)))
        text = _decode_text(data, part.parameter("charset"), is_html, self._warnings)
        if encoding_warning:
            self._warnings.append(encoding_warning)
        if is_html:
            text = text if LOOKS_LIKE_HTML.search(text) else f"<html>{text}"
        else:
            text = _plain(text) if kind not in ("text/enriched", "text/richtext") else _MARKUP.sub("", text)
        return [_Leaf("text/html" if is_html else kind, text, is_attachment)]


def _plain(text: str) -> str:
    """Plain text without anything that would later be parsed as HTML: a reader sees such tags and comments as text."""
    return LOOKS_LIKE_HTML.sub(" ", text.replace(PART, "\n")) if "<" in text else text.replace(PART, "\n")


def _displayed_leaves(leaves: list[_Leaf]) -> list[_Leaf]:
    """The inline leaves or, if they hold no text, the text attachments as well."""
    inline = [leaf for leaf in leaves if not leaf.is_attachment]
    return inline if len(inline) == len(leaves) or any(_is_readable(leaf) for leaf in inline) else leaves


def _is_readable(leaf: _Leaf) -> bool:
    text = visible_text(leaf.text, 1) if leaf.kind == "text/html" else leaf.text
    return any(letter.isalnum() for letter in text)


def _alternative(options: list[list[_Leaf]]) -> list[_Leaf]:
    """Choose among alternatives: the last HTML with readable text, else the plain text, else the first other one."""
    attachments = [leaf for leaves in options for leaf in leaves if leaf.is_attachment]
    forms = [[leaf for leaf in leaves if not leaf.is_attachment] for leaves in options]
    html_forms = [leaves for leaves in forms if any(leaf.kind == "text/html" for leaf in leaves)]
    plain_forms = [leaves for leaves in forms if any(leaf.kind == "text/plain" for leaf in leaves)]
    other_forms = [leaves for leaves in forms if leaves not in html_forms]
    readable = (
        leaves for leaves in (*reversed(html_forms[-HTML_FORMS:]), *plain_forms, *other_forms) if any(map(_is_readable, leaves))
    )
    return next(readable, []) + attachments


def _received_time(raw: bytes, message: Part, warnings: list[str]) -> datetime | None:
    """The time of arrival: from the envelope line, else the newest Received header, else Date."""
    envelope = _ENVELOPE_LINE.match(raw[:HEADER_BYTES])
    time = envelope_time(envelope[1]) if envelope else None
    if time is not None and time.year in YEARS:
        return time
    for name in ("received", "date"):
        for value in message.all(name.encode()):
            time = _parse_time(value.decode("latin-1").rpartition(";")[2].strip())
            if time is not None and time.year in YEARS:
                warnings.append(f"time_from_{name}")
                return time
    warnings.append("time_missing")
    return None


def _parse_time(value: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
