"""Readers of tables: CSV, JSON Lines and Parquet as rows of the corpus, the file of feedback, and a table of labels.

A row that cannot be taken as it stands is ``Rejected`` under a reason; what no row can be read without (the file, its columns,
its encoding) is a ``StageError``. So rows and reasons together are as many as the file has rows.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa

from tasks.data.cells import Unreadable, as_moment, as_text, shown
from tasks.data.csv_rows import EmptyTable, read_csv
from tasks.data.json_lines import read_json_lines, read_json_rows
from tasks.data.parquet_rows import read_parquet
from tasks.data.sources import FEEDBACK, LABEL_WITHOUT_FILE, Rejected, Row
from tasks.stage import StageError

Cells = Mapping[str, object]
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


def read_table(path: Path, columns: Mapping[str, str | None]) -> Iterator[Row | Rejected]:
    """Rows of a table, known by its ending in any case; ``columns`` maps our names to the table's.

    ``text`` and ``label`` must be mapped. A row without an id is ``NAME#N``, N from 0; one that is rejected before its id was
    read is ``FILE:LINE``, LINE from 1 (Parquet: ``NAME#N``). Raises StageError.
    """
    ending = next((known for known in sorted(_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(known)), None)
    if ending is None:
        raise StageError(f"ingest.path = {path}: a table ends in .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet")
    kind, reader = _ENDINGS[ending]
    stem = path.name[: -len(ending)]
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs is not None}

    def check(there: Collection[str]) -> None:
        for ours, theirs in wanted.items():
            if theirs not in there:
                names = ", ".join(map(shown, list(there)[:50]))
                raise StageError(f"ingest.columns.{ours} = {theirs!r}: {path} has no such column; it has {names}")

    number = -1
    with _told("ingest.path", path, kind):
        for number, (place, found) in enumerate(reader(path, list(wanted.values()), check)):
            name = f"{stem}#{place}" if kind == "parquet" else f"{path.name}:{place}"
            if isinstance(found, str):
                yield Rejected(name, stem, found)
            else:
                cells = {ours: found.get(theirs) for ours, theirs in wanted.items()}
                yield _row(cells, stem, f"{stem}#{number}", name)
    if number < 0:
        raise StageError(f"ingest.path = {path}: the table holds no row")


@contextmanager
def _told(setting: str, path: Path, kind: str) -> Iterator[None]:
    """What a library says of a file, as one line that names the setting and the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise StageError(f"{setting} = {path}: there is no such file") from error
    except EmptyTable as error:
        raise StageError(f"{setting} = {path}: the table is empty") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error, pa.ArrowException) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(f"{setting} = {path}: cannot be read as {kind}: {why}") from error


def _row(cells: Cells, stem: str, default: str, place: str) -> Row | Rejected:
    """A row, or the first cell that is not what its column wants; ``place`` names a row that has no id."""
    texts: dict[str, str | None] = {}
    name = ""
    try:
        for name in ("id", "source", "label", "subject", "text"):
            texts[name] = as_text(cells.get(name))
        name = "received"
        received = as_moment(cells.get(name))
    except Unreadable as error:
        return Rejected(texts.get("id") or place, texts.get("source") or stem, f"{name}_{error}")
    return Row(
        id=texts["id"] or default,
        received=received,
        source=texts["source"] or stem,
        label=texts["label"],
        subject=texts["subject"] or "",
        text=texts["text"] or "",
        warnings=() if received else ("time_missing",),
    )


def read_feedback(path: Path) -> Iterator[Row | Rejected]:
    """Labels that reviewers gave to answered messages: a JSON object a line with id, received, label, subject, text.

    The file may be empty. A line that is broken is rejected by its number, so no text of it is repeated.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise StageError(f"ingest.feedback = {path}: {error.strerror}; an empty file means that there is none") from error
    with _told("ingest.feedback", path, "jsonl"):
        for line, found in read_json_lines(path):
            yield _feedback_row(found, f"{path.name}:{line}")


def _feedback_row(entry: dict[str, object] | str, place: str) -> Row | Rejected:
    if isinstance(entry, str):
        return Rejected(place, FEEDBACK, entry)
    for name in ("id", "label", "subject", "text", "received"):
        if not isinstance(entry.get(name), str) and not (name == "received" and entry.get(name, "") is None):
            return Rejected(place, FEEDBACK, f"{name}_missing_or_no_text")
    row = _row({**entry, "source": FEEDBACK}, FEEDBACK, place, place)
    # The text is as the service was given it, blanks and all.
    return row if isinstance(row, Rejected) else replace(row, subject=str(entry["subject"]), text=str(entry["text"]))


def read_labels(path: Path) -> dict[str, str | None]:
    """Labels by file name, of a CSV with the columns file and label; None where the label is blank. Raises StageError."""
    labels: dict[str, str | None] = {}
    lines: dict[str, int] = {}

    def refused(why: str) -> StageError:
        return StageError(f"ingest.label_table = {path}: {why}")

    def check(there: Collection[str]) -> None:
        if not {"file", "label"} <= set(there):
            raise refused(f"needs a header line with the columns file,label and rows; it has {', '.join(map(shown, there))}")

    with _told("ingest.label_table", path, "csv"):
        for line, row in read_csv(path, ("file", "label"), check):
            if isinstance(row, str):
                raise refused(f"line {line}: {row}")
            file, label = as_text(row.get("file")), as_text(row.get("label"))
            if file is None:
                raise refused(f"line {line}: names no file")
            if file in labels and labels[file] != label:
                raise refused(f"{file} is {labels[file]} in line {lines[file]} and {label} in line {line}; keep one of them")
            labels[file] = label
            lines.setdefault(file, line)
    if not labels:
        raise refused("needs a header line with the columns file,label and rows")
    return labels


def labelled(rows: Iterator[Row | Rejected], labels: Mapping[str, str | None], table: str) -> Iterator[Row | Rejected]:
    """``rows`` with the labels of a table, by their ids; then what the table says of files that are not there."""
    by_name = {normalize("NFC", file): label for file, label in labels.items()}  # macOS writes ``ü`` in two characters
    left = dict.fromkeys(by_name)
    for row in rows:
        name = normalize("NFC", row.id)
        left.pop(name, None)
        yield row if isinstance(row, Rejected) else replace(row, label=by_name.get(name))
    for name in left:
        yield Rejected(name, table, LABEL_WITHOUT_FILE)
