"""How files are written and read: whole or not at all, and what SQLAlchemy calls an SQLite file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote


def sqlite_uri(path: Path, driver: str = "sqlite") -> str:
    """The SQLite file ``path`` as SQLAlchemy's URL.

    There a question mark ends the path, and nothing escapes it: such a path goes in SQLite's own form
    (https://www.sqlite.org/uri.html), which is percent-encoded.
    """
    absolute = str(path.absolute())
    return f"{driver}:///file:{quote(absolute)}?uri=true" if "?" in absolute else f"{driver}:///{absolute}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; on success it is renamed to it, so no half file ever stands there.

    Works for a file and for a folder that the caller makes (a former folder is replaced).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for all processes: what a killed run left behind is cleared by the next (DVC lets one run a stage).
    temporary, aside = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old.tmp")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be replaced in one step, but it can be moved aside in one
            _remove(aside)
            path.replace(aside)
        try:
            temporary.replace(path)
        except OSError:
            if aside.exists():  # what stood there is better than nothing
                aside.replace(path)
            raise
    finally:
        _remove(temporary)
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as sorted, indented JSON, whole or not at all. NaN is refused: write None."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
