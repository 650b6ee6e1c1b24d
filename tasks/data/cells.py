"""Conversion of one cell of a table, whatever its type: to text, and to a timestamp."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _END = 315_532_800, 10**10
"""1980-01-01 and 2286-11-20 in seconds since 1970: a number in this range is read as a time."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_LOOSE_DATE = re.compile(r"([0-9]{4})[-/]([0-9]{1,2})(?:[-/]([0-9]{1,2}))?([^0-9].*)?", re.DOTALL)


class Unreadable(ValueError):
    """A cell that is neither missing nor valid for its column; its message is the reason. May be a cell's value."""


def as_text(value: object) -> str | None:
    """A cell as text; missing, NaN and blank are None. Raises Unreadable.

    Text stays as it is. Bytes are decoded as UTF-8. A boolean is ``true`` or ``false``. A number is its digits; a whole
    number has no fraction, whatever its type: 3, 3.0 and 3.00 are ``3``. A time is ISO 8601. A JSON object (a tuple of pairs)
    or array (a list) is not text.
    """
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, str):
        return value if value and not value.isspace() else None
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return _digits(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise _not_scalar(value)


def as_timestamp(value: object) -> datetime | None:
    """A cell as a time in UTC; missing, NaN and blank are None. Raises Unreadable.

    Text is ISO 8601 (year first, ``/`` for ``-`` allowed), UTC where it names no zone. A number, or numeric text, counts from
    1970 in seconds, milliseconds, microseconds or nanoseconds: the one unit in which it lies from 1980 to 2286-11-20. The
    four ranges do not overlap, and dates written as numbers (20020822150000, 200208221500) are in none of them. A number in
    no range is ``out_of_range``; eight digits are the date YYYYMMDD.
    """
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, datetime):
        return _in_utc(value)
    if isinstance(value, str):
        text = value.strip()
        return _from_text(text) if text else None
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        raise Unreadable("not_iso8601")
    if isinstance(value, int | float | Decimal):
        text = _digits(value)
        return _from_text(text) if _is_date(text) else _from_number(Decimal(value))
    raise _not_scalar(value)


def display_name(name: str) -> str:
    """The name of a column for an error message, on one line; quoted where it has blanks at an end."""
    short = name if len(name) <= 40 else f"{name[:40]}..."
    return short if short.isprintable() and short == short.strip() and short else repr(short)


def datetime_since_1970(count: int, per_second: int) -> datetime | Unreadable:
    """The time of a typed column's count since 1970; Unreadable if ``datetime`` cannot hold it (years 1 to 9999)."""
    try:
        return _EPOCH + timedelta(microseconds=count * 1_000_000 // per_second)
    except OverflowError:
        return Unreadable("out_of_range")


def _from_text(text: str) -> datetime:
    if _NUMBER.fullmatch(text) and not _is_date(text):
        return _from_number(Decimal(text))
    try:
        return _in_utc(datetime.fromisoformat(text.upper()))
    except ValueError:
        match = _LOOSE_DATE.fullmatch(text)
    if match is None:
        raise Unreadable("not_iso8601")
    year, month, day, rest = match.groups(default="")
    try:
        return _in_utc(datetime.fromisoformat(f"{year}-{month:0>2}-{day or '1':0>2}{rest.upper()}"))
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable("not_iso8601") from error


def _is_date(text: str) -> bool:
    return len(text) == 8 and text.isascii() and text.isdigit()


def _from_number(number: Decimal) -> datetime:
    if number.is_finite():
        for power in (0, 3, 6, 9):
            if _FIRST * 10**power <= number < _END * 10**power:
                return _EPOCH + timedelta(microseconds=int(number.scaleb(6 - power)))
    raise Unreadable("out_of_range")


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError as error:
        raise Unreadable("out_of_range") from error


def _digits(number: int | float | Decimal) -> str:
    exact = number if isinstance(number, Decimal) else Decimal(repr(number))
    text = str(exact)
    if "E" in text and abs(exact.adjusted()) < 40:  # a longer one would be zeros, perhaps billions of them
        text = f"{exact:f}"
    whole, point, fraction = text.partition(".")
    if point and not fraction.strip("0"):
        text = whole
    return "0" if text == "-0" else text.lower()


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8") from error


def _not_scalar(value: object) -> Unreadable:
    if isinstance(value, Unreadable):
        return value
    return Unreadable("is_object" if isinstance(value, tuple) else "is_array" if isinstance(value, list) else "not_text")
