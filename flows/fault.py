"""What DVC says of a graph that it cannot read, as one line that names the file and the place in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.serialize import ParseError, parse_yaml_for_update
from dvc.utils.strictyaml import YAMLValidationError

from tasks.stage import yaml_fault


def dvc_fault(error: DvcException) -> str:
    """One line of ``error``; ``FILE: line 12, column 3: ...`` where it is a fault of a YAML file."""
    chain = list(_causes(error))
    for link in chain:
        if isinstance(link, YAMLValidationError):
            return _of_schema(link)
        if isinstance(link, ParseError):  # the parser's own error is the last of the chain
            return yaml_fault(os.path.normpath(link.path), Path(link.path).read_bytes(), chain[-1])
    said = [" ".join(str(link).split()) for link in chain]
    return f"{said[0]} ({said[1]})" if len(said) > 1 and said[1] and said[1] not in said[0] else said[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link:
        yield link
        link = link.__cause__


def _of_schema(error: YAMLValidationError) -> str:
    """The first of the faults that DVC's schema finds, and how many others there are."""
    first, *others = error.exc.errors
    line, column = _place(parse_yaml_for_update(error.text, error.path), first.path)
    name = ".".join(map(str, first.path))
    more = f" ({len(others)} more)" if others else ""
    return f"{os.path.normpath(error.path)}: line {line}, column {column}: {name}: {first.error_message}{more}"


def _place(data: Any, path: list[Any]) -> tuple[int, int]:
    """(line, column) from 1 of the key or item at ``path``, or of what stands above it."""
    line, column = 0, 0
    for key in path:
        places = getattr(getattr(data, "lc", None), "data", None) or {}
        if key not in places:
            break
        line, column = places[key][:2]
        data = data[key]
    return line + 1, column + 1
