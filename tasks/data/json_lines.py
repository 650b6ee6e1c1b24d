"""The objects of a JSON Lines file, one per line; a broken line does not affect the others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from tasks.data.cells import display_name
from tasks.data.text_file import not_utf8, open_text


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, object] | str]]:
    """(line number from 1, object) of each line that is not blank, or the reason why it holds no object.

    Numbers are Decimals, which keep all digits; NaN and Infinity, which are not JSON but common, are floats; a nested object
    is a tuple of pairs. A duplicate key is a reason, as it is unclear which one is meant. Raises what ``open_text`` does.
    """
    for number, line in _lines(path):
        yield number, _object(line)


def read_json_rows(
    path: Path, needed: Collection[str], check: Callable[[Collection[str]], None]
) -> Iterator[tuple[int, dict[str, object] | str]]:
    """``read_json_lines`` as a table: ``check`` is called at the end with all keys, as a line need not hold every column.

    Also raises ValueError for a file that is one JSON document over several lines, or one array.
    """
    keys: dict[str, None] = {}
    first, last, objects = "", "", 0
    for number, line in _lines(path):
        first, last = first or line, line
        row = _object(line)
        if isinstance(row, dict):
            objects += 1
            keys.update(dict.fromkeys(row))
        yield number, row
    if objects < 2 and ((first[:1], last[-1:]) == ("[", "]") or (first, last) == ("{", "}")):
        raise ValueError("it is one JSON document, and not an object a line: jq -c '.[]' makes lines of an array")
    if objects:
        check(keys)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if text := line.strip().lstrip("\ufeff"):  # concatenated files may have a byte order mark in the middle
                yield number, text


def _object(line: str) -> dict[str, object] | str:
    if not_utf8(line) is not None:
        return "not_utf8"
    try:
        # strict=False: a raw tab or NUL within a string is not valid JSON, but unambiguous.
        pairs = _DECODER.decode(line)
    except RecursionError:
        return "nested_too_deep"
    except ValueError:
        return "not_json"
    if not isinstance(pairs, tuple):
        return "not_an_object"
    row = dict(pairs)
    if len(row) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        return f"key_twice: {display_name(key)}"
    return row


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent out of Decimal's range: infinity or zero as a float
        return float(text)


_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_number, parse_int=Decimal, strict=False)
