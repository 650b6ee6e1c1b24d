"""Normalisation of the rows of any source: unique ids, and strings that can be encoded as UTF-8."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tasks.data.sources import FEEDBACK, Rejected, Row

_SURROGATE = re.compile("[\ud800-\udfff]")


def with_unique_ids(rows: Iterable[Row | Rejected]) -> Iterator[Row | Rejected]:
    """``rows``, with a number appended to a repeated id, and a warning: all stages identify rows by id."""
    used: set[str] = set()
    repeats: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Row) and row.id in used:
            original = row.id
            repeats[original] += 1
            while (name := f"{original}#{repeats[original] + 1}") in used:
                repeats[original] += 1
            row = replace(row, id=name, warnings=(*row.warnings, "id_repeated"))
        if isinstance(row, Row):
            used.add(row.id)
        yield row


def not_feedback(row: Row | Rejected) -> Row | Rejected:
    """Rename a group of the source that is named like feedback, so that it does not count as feedback."""
    return replace(row, source=f"{FEEDBACK} (source)") if row.source == FEEDBACK else row


def with_valid_unicode(row: Row | Rejected) -> Row | Rejected:
    """Replace lone surrogates, which have no UTF-8 encoding, by replacement characters, which validate counts."""
    broken = _mended(vars(row))
    if isinstance(row, Row) and (content := _mended(row.content)):
        broken["content"] = {**row.content, **content}
    return replace(row, **broken) if broken else row


def _mended(values: Mapping[str, Any]) -> dict[str, Any]:
    """The strings among ``values`` that had lone surrogates, without them."""
    return {name: _paired(value) for name, value in values.items() if isinstance(value, str) and _SURROGATE.search(value)}


def _paired(text: str) -> str:
    """Join surrogate pairs to the character they encode; replace lone surrogates."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
