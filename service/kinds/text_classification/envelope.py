"""The mbox envelope line before each message: ``From SENDER WEEKDAY MONTH DAY TIME [ZONE] YEAR``.

No standard specifies more (RFC 4155, appendix A, allows no zone; programs write several). The formats supported are those of
mutt and Dovecot: asctime, with a zone's name or offset before or after the year; the order of RFC 5322; a UUCP
``remote from HOST`` at the end. The local clock and time zone have no influence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

LINE_BYTES = 1000
"""A longer line is not an envelope: RFC 5322 limits lines to 998."""

_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d+)?)?"
_ZONE = r"(?: (?P<{}>[A-Z]{{1,5}}(?: DST)?|(?:GMT|UTC)?[+-]\d{{1,2}}:?(?:\d\d)?)(?: \([^()]*\))?)?"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_ASCTIME = rf"{_MONTH} (?P<day>\d{{1,2}}) {_CLOCK}{_ZONE.format('before')} (?P<year>\d{{4}}){_ZONE.format('after')}"
_RFC5322 = rf"(?P<day>\d{{1,2}})[ -]{_MONTH}[ -](?P<year>\d{{4}}) {_CLOCK}{_ZONE.format('after')}"
_FORMS = [
    re.compile(rf"From (?:(?P<sender>.+?) )??(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? {form}(?: remote from \S+)?\Z", re.I | re.A)
    for form in (_ASCTIME, _RFC5322)
]
_ONE_WORD = re.compile(r'(?:"[^"]*"\S*|<[^<>]*>|\S+|\S+ at \S+)\Z')

_HOURS = {
    "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,  # RFC 822
    "AST": -4, "ADT": -3, "AKST": -9, "AKDT": -8, "HST": -10,
    "WET": 0, "WEST": 1, "BST": 1, "CET": 1, "MET": 1, "MEZ": 1, "CEST": 2, "MEST": 2, "MESZ": 2, "MET DST": 2, "CET DST": 2,
    "EET": 2, "EEST": 3, "EET DST": 3, "MSK": 3, "MSD": 4,
    "SGT": 8, "HKT": 8, "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13,
}  # fmt: skip
"""Hours east of UTC. An ambiguous (IST) or unlisted name counts as UTC."""


@dataclass(frozen=True)
class Envelope:
    """One envelope line: the sender (may be empty or contain blanks) and the delivery time in UTC."""

    sender: str
    time: datetime

    @property
    def plain(self) -> bool:
        """Whether the sender is one word, as programs write it; several words may also be the beginning of a sentence."""
        return bool(_ONE_WORD.match(self.sender))


@lru_cache(maxsize=16)  # a message's own line is parsed twice: to recognise it, and for its time
def read_envelope(line: bytes | str) -> Envelope | None:
    """Parse ``line``, with or without its line end; None if it is not an envelope line."""
    text = line.decode("latin-1") if isinstance(line, bytes) else line
    if not text.startswith("From ") or len(text) > LINE_BYTES:
        return None
    text = " ".join(text.split())
    for form in _FORMS:
        match = form.match(text)
        if match:
            time = _utc_time(match.groupdict())
            return Envelope(match["sender"] or "", time) if time else None
    return None


def envelope_time(line: bytes | str) -> datetime | None:
    """The delivery time in UTC; None if the line is not an envelope or its date does not exist.

    A time without a zone, or with an unknown one, is taken as UTC.
    """
    envelope = read_envelope(line)
    return envelope.time if envelope else None


def _utc_time(parts: dict[str, str | None]) -> datetime | None:
    month = _MONTHS[str(parts["month"]).lower()]
    year, day, hour, minute, second = (int(parts[name] or 0) for name in ("year", "day", "hour", "minute", "second"))
    try:
        time = datetime(year, month, day, hour, minute, 59 if second == 60 else second, tzinfo=UTC)  # 60: a leap second
        return time - _offset(parts.get("before") or parts.get("after") or "")
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> timedelta:
    """Offset east of UTC. Raises ValueError for an offset of a day or more."""
    name = " ".join(zone.upper().split())
    match = re.fullmatch(r"(?:GMT|UTC)?([+-])(\d{1,2}):?(\d\d)?", name)
    if not match:
        return timedelta(hours=_HOURS.get(name, 0))
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if offset >= timedelta(days=1):
        raise ValueError(f"offset of a day or more: {zone}")
    return -offset if match[1] == "-" else offset
