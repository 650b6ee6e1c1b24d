"""Readers of tables: CSV, JSON Lines and Parquet as rows of the corpus, the feedback file, and a table of labels.

A single row that cannot be read is ``Rejected`` with a reason; an unreadable file (missing, wrong columns, wrong encoding) is
a ``StageError``. So rows and rejected rows together are as many as the file has rows.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa

from tasks.data.cells import Unreadable, as_text, as_timestamp, display_name
from tasks.data.csv_rows import EmptyTable, read_csv
from tasks.data.json_lines import read_json_lines, read_json_rows
from tasks.data.parquet_rows import read_parquet
from tasks.data.sources import FEEDBACK, LABEL_WITHOUT_FILE, Rejected, Row
from tasks.stage import StageError

Cells = Mapping[str, object]
ContentOf = Callable[[Mapping[str, object]], dict[str, Any]]
"""The content of a line of feedback. Raises Unreadable."""
_Readers = dict[str, tuple[str, Callable[..., Iterator[tuple[int, Any]]]]]
_TEXT: _Readers = {
    ".csv": ("csv", read_csv),
    ".tsv": ("tsv", read_csv),
    ".jsonl": ("jsonl", read_json_rows),
    ".ndjson": ("ndjson", read_json_rows),
    ".json": ("jsonl", read_json_rows),
}
_ENDINGS: _Readers = {
    **_TEXT,
    **{ending + ".gz": reader for ending, reader in _TEXT.items()},
    ".parquet": ("parquet", read_parquet),
}


def read_table(path: Path, columns: Mapping[str, str | None], content: Sequence[str]) -> Iterator[Row | Rejected]:
    """Rows of a table, its format detected by its extension in any case; ``columns`` maps our fields to the table's columns.

    ``content``: the fields that are the row's content, as text. A row without an id is ``NAME#N``, N from 0; one rejected
    before its id was read is ``FILE:LINE``, LINE from 1 (Parquet: ``NAME#N``). Raises StageError.
    """
    ending = next((suffix for suffix in sorted(_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(suffix)), None)
    if ending is None:
        raise StageError(f"ingest.path = {path}: a table ends in .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet")
    kind, reader = _ENDINGS[ending]
    stem = path.name[: -len(ending)]
    mapped = {field: column for field, column in columns.items() if column is not None}

    def check(header: Collection[str]) -> None:
        for field, column in mapped.items():
            if column not in header:
                names = ", ".join(map(display_name, list(header)[:50]))
                raise StageError(f"ingest.columns.{field} = {column!r}: {path} has no such column; it has {names}")

    number = -1
    with _as_stage_errors("ingest.path", path, kind):
        for number, (location, cells_or_reason) in enumerate(reader(path, list(mapped.values()), check)):
            name = f"{stem}#{location}" if kind == "parquet" else f"{path.name}:{location}"
            if isinstance(cells_or_reason, str):
                yield Rejected(name, stem, cells_or_reason)
            else:
                cells = {field: cells_or_reason.get(column) for field, column in mapped.items()}
                yield _row(cells, content, stem, f"{stem}#{number}", name)
    if number < 0:
        raise StageError(f"ingest.path = {path}: the table holds no row")


@contextmanager
def _as_stage_errors(setting: str, path: Path, kind: str) -> Iterator[None]:
    """Convert a library's error about a file to a StageError of one line that names the setting and the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise StageError(f"{setting} = {path}: there is no such file") from error
    except EmptyTable as error:
        raise StageError(f"{setting} = {path}: the table is empty") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(f"{setting} = {path}: cannot be read as {kind}: {reason}") from error


def _row(cells: Cells, content: Sequence[str], stem: str, default: str, place: str) -> Row | Rejected:
    """A row, or a rejection by its first invalid cell; ``place`` identifies a row without an id."""
    texts: dict[str, str | None] = {}
    name = ""
    try:
        for name in ("id", "source", "label", *content):
            texts[name] = as_text(cells.get(name))
        name = "received"
        received = as_timestamp(cells.get(name))
    except Unreadable as error:
        return Rejected(texts.get("id") or place, texts.get("source") or stem, f"{name}_{error}")
    return Row(
        id=texts["id"] or default,
        received=received,
        source=texts["source"] or stem,
        label=texts["label"],
        content={name: texts[name] or "" for name in content},
        warnings=() if received else ("time_missing",),
    )


def read_feedback(path: Path, content_of: ContentOf) -> Iterator[Row | Rejected]:
    """Labels that reviewers gave to answered inputs: a JSON object per line with id, received, label and the content.

    The file may be empty. A broken line is rejected by its number, so that nothing of it is repeated.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise StageError(f"ingest.feedback = {path}: {error.strerror}; an empty file means that there is none") from error
    with _as_stage_errors("ingest.feedback", path, "jsonl"):
        for line, entry in read_json_lines(path):
            yield _feedback_row(entry, content_of, f"{path.name}:{line}")


def _feedback_row(entry: dict[str, object] | str, content_of: ContentOf, place: str) -> Row | Rejected:
    if isinstance(entry, str):
        return Rejected(place, FEEDBACK, entry)
    try:
        for name in ("id", "label"):
            if not isinstance(entry.get(name), str):
                raise Unreadable(f"{name}_missing_or_no_text")
        content = content_of(entry)
        if not isinstance(entry.get("received", 0), str | None):
            raise Unreadable("received_missing_or_no_text")
    except Unreadable as error:
        return Rejected(place, FEEDBACK, str(error))
    row = _row({**entry, "source": FEEDBACK}, (), FEEDBACK, place, place)
    return row if isinstance(row, Rejected) else replace(row, content=content)


def read_labels(path: Path) -> dict[str, str | None]:
    """Labels by file name, from a CSV with the columns file and label; None where the label is blank. Raises StageError."""
    labels: dict[str, str | None] = {}
    lines: dict[str, int] = {}

    def table_error(reason: str) -> StageError:
        return StageError(f"ingest.label_table = {path}: {reason}")

    def check(header: Collection[str]) -> None:
        if not {"file", "label"} <= set(header):
            raise table_error(
                f"needs a header line with the columns file,label and rows; it has {', '.join(map(display_name, header))}"
            )

    with _as_stage_errors("ingest.label_table", path, "csv"):
        for line, row in read_csv(path, ("file", "label"), check):
            if isinstance(row, str):
                raise table_error(f"line {line}: {row}")
            file, label = as_text(row.get("file")), as_text(row.get("label"))
            if file is None:
                raise table_error(f"line {line}: names no file")
            if file in labels and labels[file] != label:
                raise table_error(
                    f"{file} is {labels[file]} in line {lines[file]} and {label} in line {line}; keep one of them"
                )
            labels[file] = label
            lines.setdefault(file, line)
    if not labels:
        raise table_error("needs a header line with the columns file,label and rows")
    return labels


def labelled(rows: Iterator[Row | Rejected], labels: Mapping[str, str | None], table: str) -> Iterator[Row | Rejected]:
    """``rows`` with labels from a table by their ids; then a rejected row for each table entry without a file."""
    by_name = {normalize("NFC", file): label for file, label in labels.items()}  # macOS writes ``ü`` as two code points
    unmatched = dict.fromkeys(by_name)
    for row in rows:
        name = normalize("NFC", row.id)
        unmatched.pop(name, None)
        yield row if isinstance(row, Rejected) else replace(row, label=by_name.get(name))
    for name in unmatched:
        yield Rejected(name, table, LABEL_WITHOUT_FILE)
