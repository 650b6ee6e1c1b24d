"""From what arrives to the text that a model sees.

Training, evaluation and the service all call these functions, so a model is never asked about a text that was
cleaned in another way than the one it learned from.

``parse_mail`` reads a message (RFC 5322, MIME: RFC 2045 to 2049) and never raises: real mail lies about its
charsets and breaks its own encoding, and what was wrong is returned as warnings. A ``Normaliser`` runs
the named steps of ``STEPS`` in the order given; it knows nothing of mail.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from selectolax.lexbor import LexborHTMLParser

RAW_CHARACTERS_PER_KEPT = 8
"""Raw characters looked at for each one kept: markup may be most of a message, but cost must stay bounded."""

YEARS = range(1970, 2200)
"""Years that a received time may lie in; anything else is a header that lies, and cannot be stored."""

CHARSETS = re.compile(
    r"utf-?(7|8|16|32)|us-ascii|ascii|iso-?8859|latin|cp\d|windows|mac|koi8|big5|gb|hz|euc|shift|sjis|ks-?c|tis|iso-?2022"
)
"""Charsets that mail uses. Python knows others (punycode, idna) whose decoders take the square of the length."""


@dataclass(frozen=True)
class Mail:
    """One parsed message: decoded subject and body (HTML parts as they are), received time, and what was wrong."""

    subject: str
    text: str
    received: datetime | None
    warnings: tuple[str, ...]


def parse_mail(raw: bytes) -> Mail:
    """Parse one message, with or without an mbox envelope line, from its raw bytes."""
    warnings: list[str] = []
    envelope, body = _split_envelope(raw)
    try:
        message = message_from_bytes(body)
        text = "\n".join(_bodies(message, warnings)).strip()
    except RecursionError:  # a thousand parts within each other: no mail, but it must not stop what reads it
        warnings.append("mime_too_deep")
        message = HeaderParser().parsestr(body.decode("latin-1"))
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


# --- normalisation: named steps, str -> str -------------------------------------------------------------------

_INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_TAG = re.compile(
    r"<(?:!doctype|html|head|body|title|meta|p|br|hr|div|span|table|tr|td|font|center|a|img|b|i|u|strong|em|ul|li|h[1-6])\b[^<>]*>",
    re.I,
)
_HEADER = re.compile(
    r"^[ \t>]*(?:X-[\w-]+|List-[\w-]+|Received|Return-Path|Delivered-To|Date|Message-I[Dd]|Sender|Errors-To|Precedence"
    r"|In-Reply-To|References|Mail-Followup-To)[ \t]*:.*\n?",
    re.M,
)
_LIST_TAG = re.compile(r"\A((?:(?:re|fwd?|aw)(?:\[\d+\])?:\s*)*)\[[^\]\n]{2,40}\]\s*((?:(?:re|fwd?|aw):\s*)*)", re.I)
_RULE = re.compile(r"^[ \t>]*[-_=*]{8}[^\n]*\n", re.M)
_LIST_WORDS = (
    "mailing list", "listinfo", "mailman", "yahoo! groups", "yahoogroups", "sponsored by", "unsubscribe",
)  # fmt: skip
_TRAILERS = (
    "to unsubscribe from this group", "to unsubscribe, e", "/listinfo/", "users' group:", "list maintainer:",
    "deathtospam", "your use of yahoo! groups",
)  # fmt: skip
_ADDRESS = re.compile(r"(?:mailto:)?[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*")


def _unicode(text: str) -> str:
    """NFKC (Unicode Annex 15), and no control or zero-width characters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _html(text: str) -> str:
    """The visible text of HTML; text without tags is left as it is."""
    if "<" not in text or not _TAG.search(text):
        return text
    tree = LexborHTMLParser(text)
    tree.strip_tags(["script", "style", "noscript", "template"])
    root = tree.root
    return root.text(separator=" ") if root is not None else ""


def _headers(text: str) -> str:
    """Header lines in the body of bounces and forwards, which name filters, lists and dates."""
    return _HEADER.sub("", text)


def _list_tags(text: str) -> str:
    """``Re: [listname] topic`` becomes ``Re: topic``: a list's name gives its label away."""
    return _LIST_TAG.sub(r"\1\2", text)


def _footers(text: str) -> str:
    """A last block behind a ruled line that speaks of its mailing list, and lone lines that do."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters change length when lowered, and offsets must agree
        return text
    if any(word in lower for word in _LIST_WORDS):
        for rule in reversed(list(_RULE.finditer(text))):
            block = lower[rule.end() : rule.end() + 600]
            if len(text) - rule.end() < 1200 and any(word in block for word in _LIST_WORDS):
                text = text[: rule.start()]
        lower = text.lower()
    if any(word in lower for word in _TRAILERS):
        lines = text.split("\n")
        text = "\n".join(line for line in lines if not any(word in line.lower() for word in _TRAILERS))
    return text


def _addresses(text: str) -> str:
    """E-mail addresses, which name the corpus's own receivers, become one word."""
    if "@" not in text:
        return text
    # The pattern is tried on the few words that can match: over a whole text it costs more than all other steps.
    return " ".join(_ADDRESS.sub(" emailaddress ", word) if "@" in word else word for word in text.split(" "))


def _whitespace(text: str) -> str:
    """Runs of blanks become one, empty lines go."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


STEPS: dict[str, Callable[[str], str]] = {
    "unicode": _unicode,
    "html": _html,
    "headers": _headers,
    "list_tags": _list_tags,
    "footers": _footers,
    "addresses": _addresses,
    "whitespace": _whitespace,
}
"""Every normalisation step by its name in ``prepare.normalise``."""


@dataclass(frozen=True)
class Normaliser:
    """Raw text in, the text a model sees out; the release carries these settings, so that all agree.

    ``steps`` are names of ``STEPS``, run in order; every string of ``redact`` (any case) is taken out where it
    stands; at most ``characters`` are kept. Raises ValueError for a step that is not there.
    """

    steps: tuple[str, ...]
    redact: tuple[str, ...]
    characters: int

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Normaliser:
        """As ``data/schema.json`` and a release's settings hold it."""
        return cls(tuple(settings["steps"]), tuple(settings["redact"]), settings["characters"])

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise ValueError(f"unknown normalisation step {step!r}; there are {', '.join(STEPS)}")

    @cached_property
    def _redacted(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.redact)), re.I)

    @cached_property
    def _redacted_lower(self) -> tuple[str, ...]:
        return tuple(word.lower() for word in self.redact)

    def __call__(self, text: str) -> str:
        text = text[: self.characters * RAW_CHARACTERS_PER_KEPT]
        for step in self.steps:
            text = STEPS[step](text)
        if self.redact:
            lower = text.lower()
            if any(word in lower for word in self._redacted_lower):
                text = self._redacted.sub("", text)
        return text[: self.characters]


def document(subject: str | None, text: str | None) -> str:
    """One raw text of a subject and a body; what is missing is empty."""
    return "\n".join(part for part in (subject, text) if part)
