"""The objects of a JSON Lines file, one a line, each broken line by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tasks.data.cells import shown
from tasks.data.text_file import not_utf8, open_text


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, object] | str]]:
    """(line number from 1, object) of each line that is not blank, or the reason why it holds none in place of the object.

    Numbers are Decimals, so that all their digits stay; NaN and Infinity, which are no JSON but are written by many,
    are floats; an object below the first is a tuple of pairs. A key that stands twice is a reason: nobody can tell
    which one is meant. Raises what ``open_text`` does.
    """
    for number, line in _lines(path):
        yield number, _object(line)


def read_json_rows(
    path: Path, needed: Collection[str], check: Callable[[Collection[str]], None]
) -> Iterator[tuple[int, dict[str, object] | str]]:
    """``read_json_lines`` as a table: ``check`` is given all keys at the end, for a line need not hold every column.

    Raises ValueError too, for a file that is one JSON document over many lines, or one array.
    """
    keys: dict[str, None] = {}
    first, last, objects = "", "", 0
    for number, line in _lines(path):
        first, last = first or line, line
        found = _object(line)
        if isinstance(found, dict):
            objects += 1
            keys.update(dict.fromkeys(found))
        yield number, found
    if objects < 2 and ((first[:1], last[-1:]) == ("[", "]") or (first, last) == ("{", "}")):
        raise ValueError("it is one JSON document, and not an object a line: jq -c '.[]' makes lines of an array")
    if objects:
        check(keys)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if text := line.strip().lstrip("\ufeff"):  # files with marks that were joined have one in the middle
                yield number, text


def _object(line: str) -> dict[str, object] | str:
    if not_utf8(line) is not None:
        return "not_utf8"
    try:
        # strict=False: a bare tab or NUL within a string is no JSON, but there is no doubt about what it means.
        pairs = _DECODER.decode(line)
    except RecursionError:
        return "nested_too_deep"
    except ValueError:
        return "not_json"
    if not isinstance(pairs, tuple):
        return "not_an_object"
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        return f"key_twice: {shown(key)}"
    return found


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal holds: infinite, or zero, as a float
        return float(text)


_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_number, parse_int=Decimal, strict=False)
