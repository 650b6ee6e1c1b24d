"""The line that an mbox puts before each message: ``From SENDER WEEKDAY MONTH DAY TIME [ZONE] YEAR``.

No standard says more than that (RFC 4155, appendix A, allows no zone; programs write several). What is read here is what
mutt and Dovecot read: asctime, with a zone's name or offset before or after the year; the order of RFC 5322; a UUCP
``remote from HOST`` at the end. The clock and the zone of this machine play no part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

LINE_BYTES = 1000
"""A longer line is no envelope: RFC 5322 ends a line at 998."""

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
"""Hours east of UTC. A name that two places use otherwise (IST) or that is not here counts as UTC."""


@dataclass(frozen=True)
class Envelope:
    """One envelope line: who sent the message (may be empty, may hold blanks) and when it was delivered, in UTC."""

    sender: str
    time: datetime

    @property
    def plain(self) -> bool:
        """Whether the sender is one word, as programs write it; words with blanks between may also begin a sentence."""
        return bool(_ONE_WORD.match(self.sender))


@lru_cache(maxsize=16)  # a message's own is asked for twice: whether it is one, and when it says
def read_envelope(line: bytes | str) -> Envelope | None:
    """The envelope that ``line`` (its end of line may stay) is, or None where it is an ordinary line."""
    text = line.decode("latin-1") if isinstance(line, bytes) else line
    if not text.startswith("From ") or len(text) > LINE_BYTES:
        return None
    text = " ".join(text.split())
    for form in _FORMS:
        found = form.match(text)
        if found:
            time = _time(found.groupdict())
            return Envelope(found["sender"] or "", time) if time else None
    return None


def envelope_time(line: bytes | str) -> datetime | None:
    """When the message was delivered, in UTC; None where the line is no envelope, or names a day that there is not.

    A time without a zone is UTC, and so is one whose zone is not known.
    """
    envelope = read_envelope(line)
    return envelope.time if envelope else None


def _time(parts: dict[str, str | None]) -> datetime | None:
    month = _MONTHS[str(parts["month"]).lower()]
    year, day, hour, minute, second = (int(parts[name] or 0) for name in ("year", "day", "hour", "minute", "second"))
    try:
        time = datetime(year, month, day, hour, minute, 59 if second == 60 else second, tzinfo=UTC)  # 60: a leap second
        return time - _offset(parts.get("before") or parts.get("after") or "")
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> timedelta:
    """East of UTC. Raises ValueError where an offset is longer than a day."""
    name = " ".join(zone.upper().split())
    digits = re.fullmatch(r"(?:GMT|UTC)?([+-])(\d{1,2}):?(\d\d)?", name)
    if not digits:
        return timedelta(hours=_HOURS.get(name, 0))
    size = timedelta(hours=int(digits[2]), minutes=int(digits[3] or 0))
    if size >= timedelta(days=1):
        raise ValueError(f"offset of a day or more: {zone}")
    return -size if digits[1] == "-" else size
