"""Feedback: labels from reviewers, imported into the feedback journal and exported from it as rows of a snapshot.

    python -m tasks.data.feedback import FILE --label COLUMN --text COLUMN     a table of labelled inputs
    python -m tasks.data.feedback export OUT.jsonl [--before TIME]             what ingest.feedback reads

The content has the columns of the workload's kind: --text and --subject, or --image in base64. Reviewers may disagree. Labels
that agree are one row; where two contradict each other, by the answer's id or by its content, all of them go to the
quarantine. Of several labels by one reviewer for an answer, the last one counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from service.journal import Journal, JournalLimits, read, segments
from tasks.data.cells import Unreadable
from tasks.data.rows import with_unique_ids, with_valid_unicode
from tasks.data.sources import FEEDBACK, Rejected, Row
from tasks.data.tables import read_table
from tasks.files import atomic_write
from tasks.kinds import DataPart, data_part, kind_of
from tasks.stage import Paths, StageError, add_option, as_time, find_workload, read_params

COLUMNS = ["id", "received", "label"]
"""The keys of a line of ``ingest.feedback``, beside the content."""
KEEP_FOREVER = JournalLimits(keep_days=None)
"""Answers are kept for a limited time; labels are training data."""
FLUSH_EVERY = 1000
"""Records appended to the journal between flushes: what exceeds its memory buffer would be lost."""


def collect(folder: Path, before: datetime | None, content: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows, quarantine) of all feedback in ``folder`` given before a time; both sorted, one row per input.

    Rows: id, received (ISO 8601 or None), label, and ``content``. Quarantine: id, source, reason (with the reviewers).
    """
    records = [record for path in segments(folder) for record in read(path) if record.get("kind") == "feedback"]
    frame = pd.DataFrame(records, columns=["time", "reviewer", *COLUMNS, *content])
    if before is not None:
        frame = frame[pd.to_datetime(frame.time, utc=True, format="ISO8601") < before]
    frame = frame.sort_values(["time", "id", "label", "reviewer"]).drop_duplicates(["id", "reviewer"], keep="last")
    frame = frame.reset_index(drop=True)
    frame["digest"] = [digest(dict(zip(content, values, strict=True))) for values in frame[list(content)].to_numpy()]
    labels = {key: frame.groupby(key).label.transform("nunique") for key in ("id", "digest")}
    disputed = (labels["id"] > 1) | (labels["digest"] > 1)
    rows = frame[~disputed].drop_duplicates("digest").drop_duplicates("id")[[*COLUMNS, *content]]
    return rows.sort_values(["received", "id"], ignore_index=True), _quarantine(frame[disputed])


def _quarantine(disputed: pd.DataFrame) -> pd.DataFrame:
    """One line per answer, with the names of all who labelled this content."""
    reviewers = {digest: ", ".join(sorted(set(group.reviewer))) for digest, group in disputed.groupby("digest")}
    reasons = [f"contradictory_labels: {reviewers[digest]}" for digest in disputed.digest]
    rows = disputed.assign(source=FEEDBACK, reason=pd.Series(reasons, index=disputed.index, dtype=object))
    return rows[["id", "source", "reason"]].drop_duplicates().sort_values(["id", "reason"], ignore_index=True)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write rows in the format of ``ingest.feedback``: a JSON object per line; an empty file for no rows."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows.to_dict("records"):
            # Lone surrogates of a broken string have no UTF-8 encoding: json.dumps escapes them.
            received = row["received"] if isinstance(row["received"], str) else None
            file.write(json.dumps(row | {"received": received}, sort_keys=True) + "\n")


def import_table(path: Path, columns: dict[str, str | None], reviewer: str, paths: Paths) -> tuple[int, Counter[str]]:
    """Import a table into the feedback journal: (rows imported, rows skipped by reason). Importing it again changes nothing.

    A row without a label or content, or one that cannot be read, is skipped. Raises StageError, before anything is written,
    for a table that cannot be read and for a label that the project does not know.
    """
    kind = data_part(kind_of(paths))
    try:
        rows = list(with_unique_ids(map(with_valid_unicode, read_table(path, columns, kind.CONTENT))))
    except StageError as error:
        raise StageError(str(error).replace("ingest.columns.", "--").replace("ingest.path", "FILE")) from error
    reasons = [_skip_reason(row, kind) for row in rows]
    imported = [row for row, reason in zip(rows, reasons, strict=True) if isinstance(row, Row) and reason is None]
    skipped = Counter(filter(None, reasons))
    if columns["id"] is None:  # next week's table may have the same name, so the id is a hash of the content
        imported = [replace(row, id=digest(row.content)[:16]) for row in imported]
    known_labels = read_params(paths.root)["validate"]["labels"]
    for row in imported:
        if row.label not in known_labels:
            raise StageError(f"{path}: {row.id} has the label {row.label!r}, validate.labels are {', '.join(known_labels)}")
    _store([_record(row, reviewer) for row in imported], paths.feedback)
    return len(imported), skipped


def _skip_reason(row: Row | Rejected, kind: DataPart) -> str | None:
    """Why a row cannot be feedback, or None."""
    if isinstance(row, Rejected):
        return row.reason
    if row.label is None:
        return "no_label"
    if not any(row.content.values()):
        return "no_content"
    try:
        kind.content_of(row.content)
    except Unreadable as error:
        return str(error)
    return None


def digest(content: Mapping[str, Any]) -> str:
    """A hash of what a label is about; where a part is missing, it is the same as where it is empty."""
    present = [value if isinstance(value, str) else json.dumps(value) for value in content.values() if value]
    return hashlib.sha256("\x1c".join(present).encode("utf-8", "replace")).hexdigest()


def _record(row: Row, reviewer: str) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "id": f"import:{row.id}",
        "label": row.label,
        "reviewer": reviewer,
        **row.content,
        "received": row.received.isoformat() if row.received else None,
        "answered": None,
    }


def _store(records: list[dict[str, Any]], folder: Path) -> None:
    """Append to the journal and flush; StageError where that fails, as a person is waiting for it."""
    journal = Journal(folder, KEEP_FOREVER)
    try:
        for start in range(0, len(records), FLUSH_EVERY):
            for record in records[start : start + FLUSH_EVERY]:
                journal.append(record)
            if not journal.flush() or journal.lost:
                raise StageError(f"{folder}: feedback cannot be written; is the disk full? Import it again, nothing is doubled")
    finally:
        journal.close()


def export(paths: Paths, target: Path, before: datetime | None) -> tuple[int, int]:
    """(rows written to ``target``, ids left out because their labels contradict each other)."""
    rows, quarantine = collect(paths.feedback, before, data_part(kind_of(paths)).CONTENT)
    write_rows(rows, target)
    return len(rows), quarantine.id.nunique()


def _parser(content: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.data.feedback", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_option(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    importer = commands.add_parser("import", help="take the labelled rows of a table as feedback")
    importer.add_argument("file", type=Path, help="a table: .csv, .tsv, .jsonl or .parquet")
    for name in ("label", content[-1]):
        importer.add_argument(f"--{name}", required=True, metavar="COLUMN", help=f"the column that holds the {name}")
    for name in (*content[:-1], "received", "id"):
        importer.add_argument(f"--{name}", metavar="COLUMN", help=f"the column that holds the {name}, if one does")
    importer.add_argument("--reviewer", default="import", metavar="NAME", help="who gave the labels (default: import)")
    exporter = commands.add_parser("export", help="write all feedback as ingest.feedback wants it")
    exporter.add_argument("out", type=Path, metavar="OUT.jsonl")
    exporter.add_argument(
        "--before", type=datetime.fromisoformat, metavar="TIME", help="only what was said before (ISO 8601, UTC)"
    )
    return parser


def main(arguments: list[str], folder: Path | None = None) -> str:
    """Run the command line; returns a sentence about what was done. Raises StageError."""
    workload = argparse.ArgumentParser(add_help=False)
    add_option(workload)
    paths = find_workload(workload.parse_known_args(arguments)[0].workload, folder)
    content = data_part(kind_of(paths)).CONTENT
    options = _parser(content).parse_args(arguments)
    if options.command == "export":
        rows, disputed = export(paths, options.out, as_time(options.before))
        return f"{rows} rows with feedback in {options.out}, {disputed} left out: their labels contradict each other"
    columns = {name: getattr(options, name) for name in (*COLUMNS, *content)}
    imported, skipped = import_table(options.file, {**columns, "source": None}, options.reviewer, paths)
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.most_common())
    detail = f": {reasons}" if skipped else ""
    return f"{imported} labelled rows of {options.file} are feedback now, {skipped.total()} rows were left out{detail}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except StageError as error:
        sys.exit(f"feedback: {error}")
