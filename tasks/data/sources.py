"""Readers: one for each kind of source, all yielding the same two kinds of row.

A reader yields a ``Row`` for what it could read and a ``Rejected`` for what it could not, so that the numbers
add up. What makes the whole source unusable (missing, empty, of the wrong columns) is a ``StageError``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from service.mail import parse_mail
from tasks.stage import StageError, as_time

FEEDBACK = "feedback"
"""The source group of messages that were answered in service and labelled by a reviewer."""


@dataclass(frozen=True)
class Row:
    """One labelled message as its source gave it; ``label`` is None where the source gives none."""

    id: str
    received: datetime | None
    source: str
    label: str | None
    subject: str
    text: str
    warnings: tuple[str, ...]
    file: str = ""
    """The file that it was read from, where each file is a message or a box of them."""


@dataclass(frozen=True)
class Rejected:
    """What could not be read: where it stood and why. No text of it."""

    id: str
    source: str
    reason: str
    file: str = ""


def from_message(name: str, source: str, label: str | None, raw: bytes, file: str) -> Row | Rejected:
    """Parse one raw message (RFC 5322) that was read from ``file``."""
    if not raw.strip():
        return Rejected(name, source, "empty_file", file)
    mail = parse_mail(raw)
    return Row(name, mail.received, source, label, mail.subject, mail.text, mail.warnings, file)


def _label_table(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"ingest.label_table = {path}: cannot be read: {error}") from error
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise StageError(f"ingest.label_table = {path}: needs a header line with the columns file,label and rows")
    return {row["file"]: row["label"] for row in rows}


def read_table(path: Path, columns: Mapping[str, str | None]) -> Iterator[Row | Rejected]:
    """Rows of a CSV, JSON Lines or Parquet file, by its ending; ``columns`` maps our names to the table's.

    ``text`` and ``label`` must be mapped. Without ``id`` a row is known by the file's name and its number.
    """
    frame = _load_table(path)
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    for ours, theirs in wanted.items():
        if theirs not in frame.columns:
            there = ", ".join(map(str, frame.columns))
            raise StageError(f"ingest.columns.{ours} = {theirs!r}: {path} has no such column; it has {there}")
    if frame.empty:
        raise StageError(f"ingest.path = {path}: the table holds no row")
    frame = frame[list(wanted.values())].set_axis(list(wanted), axis=1)
    times = pd.to_datetime(frame["received"], utc=True, errors="coerce", format="ISO8601") if "received" in frame else None
    for number, row in enumerate(frame.to_dict("records")):
        name = _cell(row.get("id")) or f"{path.stem}#{number}"
        source = _cell(row.get("source")) or path.stem
        received: datetime | None = None
        warnings: tuple[str, ...] = ("time_missing",)
        if times is not None and not pd.isna(times.iloc[number]):
            received, warnings = times.iloc[number].to_pydatetime(), ()
        elif times is not None and _cell(row["received"]):
            yield Rejected(name, source, "received_not_iso8601")
            continue
        yield Row(
            name, received, source, _cell(row["label"]), _cell(row.get("subject")) or "", _cell(row["text"]) or "", warnings
        )


def read_feedback(path: Path) -> Iterator[Row | Rejected]:
    """Labels that reviewers gave to answered messages: a JSON object a line with id, received, label, subject, text.

    The file may be empty. A line that is broken is rejected by its number, so no text of it is repeated.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise StageError(f"ingest.feedback = {path}: {error.strerror}; an empty file means that there is none") from error
    for number, line in enumerate(lines):
        if line.strip():
            yield _feedback_row(line, f"{path.name}#{number}")


def _feedback_row(line: bytes, place: str) -> Row | Rejected:
    try:
        entry = json.loads(line)
    except ValueError:
        return Rejected(place, FEEDBACK, "not_json")
    if not isinstance(entry, dict):
        return Rejected(place, FEEDBACK, "not_an_object")
    for name in ("id", "label", "subject", "text", "received"):
        if not isinstance(entry.get(name), str) and not (name == "received" and entry.get(name, "") is None):
            return Rejected(place, FEEDBACK, f"{name}_missing_or_no_text")
    received: datetime | None = None
    warnings: tuple[str, ...] = ("time_missing",)
    if entry["received"]:
        try:
            received, warnings = as_time(datetime.fromisoformat(entry["received"])), ()
        except ValueError:
            return Rejected(place, FEEDBACK, "received_not_iso8601")
    label = _cell(entry["label"])
    return Row(entry["id"], received, FEEDBACK, label, entry["subject"], entry["text"], warnings)


def _load_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
        if path.suffix in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8") as file:  # pandas would make 1 into 1.0 where another row has no label
                return pd.DataFrame([json.loads(line) for line in file if line.strip()], dtype=object)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise StageError(f"ingest.path = {path}: there is no such file") from error
    except pd.errors.EmptyDataError as error:
        raise StageError(f"ingest.path = {path}: the table is empty") from error
    except (ValueError, OSError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise StageError(f"ingest.path = {path}: cannot be read as {path.suffix[1:]}: {why}") from error
    raise StageError(f"ingest.path = {path}: a table ends in .csv, .jsonl, .ndjson or .parquet")


def _cell(value: object) -> str | None:
    """A cell as text; missing and blank are None."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    return str(value) if str(value).strip() else None
