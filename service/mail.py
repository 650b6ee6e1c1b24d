"""From a raw message to its subject, its body and when it arrived.

``parse_mail`` reads a message (RFC 5322, MIME: RFC 2045 to 2049) and never raises: real mail lies about its
charsets and breaks its own encoding, and what was wrong is returned as warnings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.parser import HeaderParser
from email.policy import Compat32
from email.utils import parsedate_to_datetime
from itertools import islice

YEARS = range(1970, 2200)
"""Years that a received time may lie in; anything else is a header that lies, and cannot be stored."""

CHARSETS = re.compile(
    r"utf-?(7|8|16|32)|us-ascii|ascii|iso-?8859|latin|cp\d|windows|mac|koi8|big5|gb|hz|euc|shift|sjis|ks-?c|tis|iso-?2022"
)
"""Charsets that mail uses. Python knows others (punycode, idna) whose decoders take the square of the length."""

HEADER_CHARACTERS = 2000
"""What is read of one header: Python decodes headers, and splits their parameters, in the square of the length."""


PARTS_OF_PARTS = 30
"""Multiparts in one message: Python looks at each line once for each of those that it stands in."""
_MULTIPART = re.compile(rb"content-type:\s*multipart/", re.I)


@dataclass(frozen=True)
class Mail:
    """One parsed message: decoded subject and body (HTML parts as they are), received time, and what was wrong."""

    subject: str
    text: str
    received: datetime | None
    warnings: tuple[str, ...]


class _ShortHeaders(Compat32):
    """Cuts each header, also those of parts within parts, and warns of it."""

    _warnings: list[str]

    def __init__(self, warnings: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "_warnings", warnings)  # a policy lets nobody else set anything

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if len(value) > HEADER_CHARACTERS:
            self._warnings.append("header_cut")
        return name, value[:HEADER_CHARACTERS]


def parse_mail(raw: bytes) -> Mail:
    """Parse one message, with or without an mbox envelope line, from its raw bytes."""
    warnings: list[str] = []
    envelope, body = _split_envelope(raw)
    if sum(1 for _ in islice(_MULTIPART.finditer(body), PARTS_OF_PARTS + 1)) > PARTS_OF_PARTS:
        warnings.append("mime_too_many_multiparts")
        body = _MULTIPART.sub(b"X-Not-Parsed:", body)
    policy = _ShortHeaders(warnings)
    try:
        message = message_from_bytes(body, policy=policy)
        text = "\n".join(_bodies(message, warnings)).strip()
    except Exception as error:  # a thousand parts within each other, a boundary in a broken charset (RFC 2231)
        warnings.append("mime_too_deep" if isinstance(error, RecursionError) else f"mime_{type(error).__name__}")
        message = HeaderParser(policy=policy).parsestr(body.decode("latin-1"))
        text = ""
    subject = _decode_subject(message, warnings)
    received = _received(envelope, message, warnings)
    return Mail(subject, text, received, tuple(dict.fromkeys(warnings)))


def _split_envelope(raw: bytes) -> tuple[str, bytes]:
    if not raw.startswith(b"From "):
        return "", raw
    line, _, rest = raw.partition(b"\n")
    return line.decode("latin-1").strip(), rest


def _decode_bytes(data: bytes, declared: str | None, warnings: list[str]) -> str:
    """Decode as declared; where that is a lie, as UTF-8, and at last with replacement characters."""
    charset = (declared or "ascii").strip("\"' ").lower().replace("_", "-")
    if not CHARSETS.match(charset):
        charset = "unknown"
    for candidate in (charset, "utf-8"):
        try:
            text = data.decode(candidate)
        except (UnicodeDecodeError, LookupError, ValueError):
            continue
        if candidate != charset:
            warnings.append(f"charset_{'undeclared' if declared is None else 'wrong'}")
        return text
    try:
        # A few broken bytes in a true big5 message must not turn all of it into Latin letters.
        text = data.decode("cp1252" if charset in ("ascii", "us-ascii") else charset, errors="replace")
        warnings.append("charset_undeclared" if declared is None else "charset_wrong")
    except (LookupError, ValueError):
        text = data.decode("cp1252", errors="replace")
        warnings.append("charset_unknown")
    return text


def _decode_subject(message: Message, warnings: list[str]) -> str:
    try:
        raw = message.get("Subject", "")
        pieces = decode_header(raw)
    except Exception as error:  # the standard library raises of many kinds here (binascii, LookupError, ValueError)
        warnings.append(f"subject_undecodable_{type(error).__name__}")
        return " ".join(str(message.get("Subject", "")).split())
    decoded = [_decode_bytes(piece, charset, warnings) if isinstance(piece, bytes) else piece for piece, charset in pieces]
    return " ".join("".join(decoded).split())


def _bodies(message: Message, warnings: list[str]) -> list[str]:
    """The readable text parts in order; of a multipart/alternative, the plain one unless it is blank."""
    if message.get_content_type() == "multipart/alternative" and isinstance(message.get_payload(), list):
        options = [(part.get_content_type(), _bodies(part, warnings)) for part in _children(message)]
        readable = [(kind, bodies) for kind, bodies in options if any(body.strip() for body in bodies)]
        plain = [bodies for kind, bodies in readable if kind == "text/plain"]
        return plain[0] if plain else (readable[0][1] if readable else [])
    if message.is_multipart():
        return [body for part in _children(message) for body in _bodies(part, warnings)]
    if message.get_content_maintype() != "text" or message.get_content_disposition() == "attachment":
        return []
    if message.defects:
        warnings.append(f"mime_{type(message.defects[0]).__name__}")
    return [_decode_body(message, warnings)]


def _children(message: Message) -> list[Message]:
    payload = message.get_payload()
    return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []


def _decode_body(part: Message, warnings: list[str]) -> str:
    try:
        data = part.get_payload(decode=True)
    except Exception as error:  # an unknown transfer encoding, a broken uuencode: the raw text is still something
        warnings.append(f"transfer_encoding_{type(error).__name__}")
        data = str(part.get_payload()).encode("utf-8", "surrogateescape")
    if not isinstance(data, bytes):
        return ""
    try:
        charset = part.get_content_charset()
    except Exception:  # a Content-Type parameter that is itself broken (RFC 2231)
        warnings.append("charset_unreadable")
        charset = None
    return _decode_bytes(data, charset, warnings)


def _received(envelope: str, message: Message, warnings: list[str]) -> datetime | None:
    """When the message arrived: the envelope, else the newest Received header, else its own Date."""
    parts = envelope.split(None, 2)
    if len(parts) == 3:
        for form in ("%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Z %Y"):
            try:
                time = datetime.strptime(parts[2].strip(), form).replace(tzinfo=UTC)
            except ValueError:
                continue
            if time.year in YEARS:
                return time
    for name in ("Received", "Date"):
        for value in message.get_all(name, []):
            try:
                time = parsedate_to_datetime(str(value).rpartition(";")[2].strip())
                if time.tzinfo is None:
                    time = time.replace(tzinfo=UTC)
                time = time.astimezone(UTC)
            except (ValueError, TypeError, IndexError, OverflowError):
                continue
            if time.year not in YEARS:
                continue
            warnings.append(f"time_from_{name.lower()}")
            return time
    warnings.append("time_missing")
    return None
