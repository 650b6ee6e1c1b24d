"""Readers of the sources of texts: raw messages from an npm package or a folder, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from tasks.data import npm
from tasks.data.cells import Unreadable
from tasks.data.sources import Rejected, Row
from tasks.data.tables import labelled, read_labels, read_table
from tasks.kinds.text_classification.data.folders import read_folder
from tasks.kinds.text_classification.data.messages import from_message
from tasks.kinds.text_classification.data.settings import Ingest
from tasks.stage import Paths, StageError

CONTENT = ("subject", "text")


def read(settings: Ingest, paths: Paths) -> Iterable[Row | Rejected]:
    """The rows of the configured source. Raises StageError."""
    path = Path(settings.path)
    if settings.source == "table":
        return read_table(path, settings.columns.model_dump(), CONTENT)
    if settings.source == "folder":
        rows = read_folder(path, settings.labels, settings.label_table)
        table = settings.label_table
        return labelled(rows, read_labels(path / table), table) if table else rows
    pointer = npm.read_pointer(path)
    archive = npm.fetch(pointer, paths.downloads)
    return _npm_rows(npm.messages(archive, pointer.messages), settings.labels, pointer)


def _npm_rows(
    messages: Iterator[tuple[str, str, bytes]], labels: dict[str, str], pointer: npm.Pointer
) -> Iterator[Row | Rejected]:
    first = next(messages, None)
    if first is None:
        raise StageError(f"{pointer.package}: no file of the archive matches {pointer.messages!r}")
    for name, group, raw in chain([first], messages):
        yield from_message(name, group, labels.get(group, group), raw, name)


def content_of(entry: Mapping[str, object]) -> dict[str, str]:
    """Subject and text exactly as the service received them, whitespace included. Raises Unreadable."""
    for name in CONTENT:
        if not isinstance(entry.get(name), str):
            raise Unreadable(f"{name}_missing_or_no_text")
    return {name: str(entry[name]) for name in CONTENT}
