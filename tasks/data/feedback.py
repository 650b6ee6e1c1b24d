"""Feedback: what reviewers said of messages, into the journal of feedback and out of it as rows of a snapshot.

    python -m tasks.data.feedback import FILE --label COLUMN --text COLUMN     a table of labelled messages
    python -m tasks.data.feedback export OUT.jsonl [--before TIME]             what ingest.feedback reads

Reviewers differ. Labels that agree are one row; where two contradict each other, by the message's id or by its text,
none of them is believed, and all of them go to the quarantine. A reviewer who corrects himself is believed in what he
said last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from service.journal import Journal, JournalLimits, read, segments
from service.text import document
from tasks.data.rows import storable, told_apart
from tasks.data.sources import FEEDBACK, Rejected, Row
from tasks.data.tables import read_table
from tasks.stage import Paths, StageError, as_time, atomic_write, read_params

COLUMNS = ["id", "received", "label", "subject", "text"]
"""What a line of ``ingest.feedback`` holds."""
FOR_EVER = JournalLimits(keep_days=None)
"""Answers are kept for a while; labels are training data."""
AT_ONCE = 1000
"""Records handed to the journal before it is waited for: what does not fit into its memory would be lost."""


def collect(folder: Path, before: datetime | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows, quarantine) of all feedback in ``folder`` that was given before a time; both sorted, one row a message.

    Rows: id, received (ISO 8601 or None), label, subject, text. Quarantine: id, source, reason (with the reviewers).
    """
    records = [record for path in segments(folder) for record in read(path) if record.get("kind") == "feedback"]
    frame = pd.DataFrame(records, columns=["time", "reviewer", *COLUMNS])
    if before is not None:
        frame = frame[pd.to_datetime(frame.time, utc=True, format="ISO8601") < before]
    frame = frame.sort_values(["time", "id", "label", "reviewer"]).drop_duplicates(["id", "reviewer"], keep="last")
    frame = frame.reset_index(drop=True)
    frame["document"] = [document(subject, text) for subject, text in zip(frame.subject, frame.text, strict=True)]
    labels = {key: frame.groupby(key).label.transform("nunique") for key in ("id", "document")}
    disputed = (labels["id"] > 1) | (labels["document"] > 1)
    rows = frame[~disputed].drop_duplicates("document").drop_duplicates("id")[COLUMNS]
    return rows.sort_values(["received", "id"], ignore_index=True), _quarantine(frame[disputed])


def _quarantine(disputed: pd.DataFrame) -> pd.DataFrame:
    """A line a message, with the names of all who judged this text."""
    names = {text: ", ".join(sorted(set(own.reviewer))) for text, own in disputed.groupby("document")}
    reasons = [f"contradictory_labels: {names[text]}" for text in disputed.document]
    named = disputed.assign(source=FEEDBACK, reason=pd.Series(reasons, index=disputed.index, dtype=object))
    return named[["id", "source", "reason"]].drop_duplicates().sort_values(["id", "reason"], ignore_index=True)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write rows as ``ingest.feedback`` wants them: a JSON object a line; no rows are an empty file."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows[COLUMNS].to_dict("records"):
            # Lone surrogates of a broken message cannot be written as UTF-8, but as an escape.
            received = row["received"] if isinstance(row["received"], str) else None
            file.write(json.dumps(row | {"received": received}, sort_keys=True) + "\n")


def import_table(path: Path, columns: dict[str, str | None], reviewer: str, paths: Paths) -> tuple[int, Counter[str]]:
    """(rows taken into the journal of feedback, rows left out by their reason) of a table; doing it twice changes nothing.

    A row without a label or a text, or one that cannot be read, is left out. Raises StageError, before anything is
    written, for a table that cannot be read and for a label that the project does not know.
    """
    try:
        rows = list(told_apart(map(storable, read_table(path, columns))))
    except StageError as error:
        raise StageError(str(error).replace("ingest.columns.", "--").replace("ingest.path", "FILE")) from error
    taken = [row for row in rows if isinstance(row, Row) and _left_out(row) is None]
    left = Counter(reason for row in rows if (reason := _left_out(row)))
    if columns["id"] is None:  # next week's table may have the same name: a message is then known by what it says
        taken = [replace(row, id=_digest(row)) for row in taken]
    known = read_params(paths.root)["validate"]["labels"]
    for row in taken:
        if row.label not in known:
            raise StageError(f"{path}: {row.id} has the label {row.label!r}, validate.labels are {', '.join(known)}")
    _store([_record(row, reviewer) for row in taken], paths.feedback)
    return len(taken), left


def _left_out(row: Row | Rejected) -> str | None:
    """Why a row cannot be feedback, or None."""
    if isinstance(row, Rejected):
        return row.reason
    if row.label is None:
        return "no_label"
    return None if document(row.subject, row.text) else "no_text"


def _digest(row: Row) -> str:
    return hashlib.sha256(document(row.subject, row.text).encode("utf-8", "replace")).hexdigest()[:16]


def _record(row: Row, reviewer: str) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "id": f"import:{row.id}",
        "label": row.label,
        "reviewer": reviewer,
        "subject": row.subject,
        "text": row.text,
        "received": row.received.isoformat() if row.received else None,
        "answered": None,
    }


def _store(records: list[dict[str, Any]], folder: Path) -> None:
    """Onto the disk, or StageError: a person is waiting for it."""
    journal = Journal(folder, FOR_EVER)
    try:
        for start in range(0, len(records), AT_ONCE):
            for record in records[start : start + AT_ONCE]:
                journal.append(record)
            if not journal.flush() or journal.lost:
                raise StageError(f"{folder}: feedback cannot be written; is the disk full? Import it again, nothing is doubled")
    finally:
        journal.close()


def export(paths: Paths, target: Path, before: datetime | None) -> tuple[int, int]:
    """(rows written to ``target``, ids left out because their labels contradict each other)."""
    rows, quarantine = collect(paths.feedback, before)
    write_rows(rows, target)
    return len(rows), quarantine.id.nunique()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.data.feedback", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("import", help="take the labelled messages of a table as feedback")
    bring.add_argument("file", type=Path, help="a table: .csv, .tsv, .jsonl or .parquet")
    for name in ("label", "text"):
        bring.add_argument(f"--{name}", required=True, metavar="COLUMN", help=f"the column that holds the {name}")
    for name in ("subject", "received", "id"):
        bring.add_argument(f"--{name}", metavar="COLUMN", help=f"the column that holds the {name}, if one does")
    bring.add_argument("--reviewer", default="import", metavar="NAME", help="who gave the labels (default: import)")
    write = commands.add_parser("export", help="write all feedback as ingest.feedback wants it")
    write.add_argument("out", type=Path, metavar="OUT.jsonl")
    write.add_argument(
        "--before", type=datetime.fromisoformat, metavar="TIME", help="only what was said before (ISO 8601, UTC)"
    )
    return parser


def main(arguments: list[str], paths: Paths) -> str:
    """Do what the command line says; a sentence of what was done. Raises StageError."""
    given = _parser().parse_args(arguments)
    if given.command == "export":
        rows, disputed = export(paths, given.out, as_time(given.before))
        return f"{rows} messages with feedback in {given.out}, {disputed} left out: their labels contradict each other"
    columns = {name: getattr(given, name) for name in ("id", "received", "label", "subject", "text")}
    taken, left = import_table(given.file, {**columns, "source": None}, given.reviewer, paths)
    reasons = ", ".join(f"{reason} {count}" for reason, count in left.most_common())
    said = f": {reasons}" if left else ""
    return f"{taken} labelled messages of {given.file} are feedback now, {left.total()} rows were left out{said}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:], Paths(Path.cwd())))
    except StageError as error:
        sys.exit(f"feedback: {error}")
