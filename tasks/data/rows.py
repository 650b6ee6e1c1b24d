"""What holds for every row, whatever source it is of: its id is its own, and it can be written as UTF-8."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from tasks.data.sources import FEEDBACK, Rejected, Row

_SURROGATE = re.compile("[\ud800-\udfff]")


def told_apart(rows: Iterable[Row | Rejected]) -> Iterator[Row | Rejected]:
    """``rows``, with a number behind an id that stood before, and a warning: by their ids all stages tell messages apart."""
    taken: set[str] = set()
    times: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Row) and row.id in taken:
            own = row.id
            times[own] += 1
            while (name := f"{own}#{times[own] + 1}") in taken:
                times[own] += 1
            row = replace(row, id=name, warnings=(*row.warnings, "id_repeated"))
        if isinstance(row, Row):
            taken.add(row.id)
        yield row


def not_feedback(row: Row | Rejected) -> Row | Rejected:
    """A group of the source that is called as feedback is must not count as it does."""
    return replace(row, source=f"{FEEDBACK} (source)") if row.source == FEEDBACK else row


def storable(row: Row | Rejected) -> Row | Rejected:
    """Lone surrogates cannot be written as UTF-8; they become replacement characters, which validate counts."""
    broken: dict[str, Any] = {
        name: _paired(value) for name, value in vars(row).items() if isinstance(value, str) and _SURROGATE.search(value)
    }
    return replace(row, **broken) if broken else row


def _paired(text: str) -> str:
    """Two surrogates that are a pair are the character that they stand for."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
