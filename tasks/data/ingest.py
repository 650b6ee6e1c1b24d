"""Stage ingest: a source of labelled messages becomes one Parquet file, and nothing is lost on the way.

Every message of the source ends in one of three files: the corpus, what has no label, or the quarantine with a reason.
What has no label, and was received before ``until``, may still teach a student, to whom the teacher says what it is. The
corpus holds the messages received after ``until`` too, marked as not ``known``: they are the future that a model
trained on the snapshot will meet, and no stage but evaluate looks at them. What reviewers said of answered messages is
always known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from tasks.data import npm
from tasks.data.folders import read_folder
from tasks.data.rows import not_feedback, storable, told_apart
from tasks.data.sources import FEEDBACK, LABEL_WITHOUT_FILE, Rejected, Row, from_message
from tasks.data.tables import labelled, read_feedback, read_labels, read_table
from tasks.stage import Paths, Settings, StageError, as_time, atomic_write, run, write_json


class Columns(Settings):
    """The table's own names for our columns; null where it has none."""

    id: str | None
    received: str | None
    source: str | None
    label: str
    subject: str | None
    text: str


class Ingest(Settings):
    source: Literal["npm", "table", "folder"]
    """What ``path`` is: an npm pointer file, a table (CSV, JSON Lines, Parquet) or a folder of raw messages."""
    path: str
    until: datetime | date | None
    """The snapshot holds what was received before this time (UTC); null: everything the source holds."""
    labels: dict[str, str]
    """npm and folder: the label of each source group; a group that is not named is a label of its own."""
    label_table: str | None
    """folder: a CSV below ``path`` with the columns file,label, in place of ``labels``."""
    columns: Columns
    feedback: str
    """JSON lines of messages that reviewers labelled; empty where there are none."""
    feedback_weight: float = Field(gt=0)
    """What a feedback message counts: only some of the traffic gets a label, so one stands for several messages."""
    label_mix_prior: float | None = Field(gt=0)
    """How many feedback messages the source's own label mix counts as, see ``label_weights``; null: it is left as it is."""


def read_source(settings: Ingest, paths: Paths) -> Iterable[Row | Rejected]:
    """The rows of the source that ``settings`` name. Raises StageError."""
    path = Path(settings.path)
    if settings.source == "table":
        return read_table(path, settings.columns.model_dump())
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


def label_weights(source: pd.Series, feedback: pd.Series, prior: float) -> dict[str, float]:
    """What a message of each label of the source counts, so that the labels weigh as they occur now.

    A score means what it says, and a threshold is the best one, only in the mix of labels that it was learned in, and
    the mix moves first (Saerens, Latinne and Decaestecker 2002). How labels occur now is what feedback shows, drawn
    towards the source's own mix as if that were ``prior`` messages more (a Dirichlet prior). With no feedback: 1.
    """
    if feedback.empty:
        return dict.fromkeys(source.unique(), 1.0)
    seen, before = feedback.value_counts(), source.value_counts(normalize=True)
    total = sum(int(seen.get(label, 0)) for label in before.index) + prior
    return {str(label): (int(seen.get(label, 0)) + prior * share) / total / share for label, share in before.items()}


def collect(
    rows: Iterable[Row | Rejected], until: datetime | None, feedback_weight: float, label_mix_prior: float | None
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(corpus, quarantine, unlabelled): one row a message; what the source knew, then feedback, then the future, each by
    time and id.

    Corpus columns: id, received (UTC, may be missing), source, label, subject, text, warnings (joined by a comma),
    known (feedback, or received before ``until``, or with no time to tell), weight. Quarantine: id, source, reason.
    Unlabelled: id, received, source, subject, text.
    """
    kept: list[Row] = []
    unlabelled: list[Row] = []
    rejected: list[Rejected] = []
    for row in told_apart(map(storable, rows)):
        if isinstance(row, Rejected):
            rejected.append(row)
        elif row.label is not None:
            kept.append(row)
        elif row.source == FEEDBACK or (until and row.received and row.received >= until):
            rejected.append(Rejected(row.id, row.source, "no_label"))
        else:
            unlabelled.append(row)
    corpus = _table(kept)
    corpus.insert(3, "label", [row.label for row in kept])
    corpus["warnings"] = [",".join(row.warnings) for row in kept]
    fed_back = corpus.source == FEEDBACK
    corpus["known"] = fed_back | ~(corpus.received >= until) if until else True
    corpus["weight"] = np.where(fed_back, feedback_weight, 1.0)
    if label_mix_prior is not None:
        past = corpus.known & ~fed_back
        weights = label_weights(corpus.label[past], corpus.label[fed_back], label_mix_prior)
        corpus.loc[past, "weight"] = corpus.label[past].map(weights)
    # What comes later joins the groups that are there: so feedback, whatever its Date says, can move nothing of golden.
    order = corpus.assign(future=~corpus.known.astype(bool), fed_back=fed_back)
    corpus = corpus.loc[order.sort_values(["future", "fed_back", "received", "id"], na_position="first").index]
    corpus = corpus.reset_index(drop=True)
    quarantine = pd.DataFrame([vars(row) for row in rejected], columns=["id", "source", "reason"])
    return corpus, quarantine, _table(unlabelled).sort_values(["received", "id"], na_position="first", ignore_index=True)


def _table(rows: list[Row]) -> pd.DataFrame:
    """What each message is, but for its label. Times are of microseconds: pandas' own nanoseconds end in 2262."""
    times = [row.received.astimezone(UTC).replace(tzinfo=None) if row.received else None for row in rows]
    return pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "received": pd.Series(np.array(times, dtype="datetime64[us]")).dt.tz_localize("UTC"),
            "source": [row.source for row in rows],
            "subject": [row.subject for row in rows],
            "text": [row.text for row in rows],
        }
    )


def counted(rows: Iterable[Row | Rejected], files: Counter[str]) -> Iterator[Row | Rejected]:
    """The rows as they come; ``files`` then says how many rows came of each file."""
    for row in rows:
        if row.file:
            files[row.file] += 1
        yield row


def account(corpus: pd.DataFrame, quarantine: pd.DataFrame, unlabelled: pd.DataFrame, files: Counter[str]) -> dict[str, object]:
    """Where every message went; the figures add up. Rows of a label table without a file are no messages.

    Where files are messages, ``files - boxes + in_boxes`` are the messages of the source: each file is one row, or is one
    of ``boxes``, which together are ``in_boxes`` rows.
    """
    boxes = [rows for rows in files.values() if rows > 1]
    without_file = quarantine.reason == LABEL_WITHOUT_FILE
    quarantine = quarantine[~without_file]
    warnings = Counter(chain.from_iterable(filter(None, cell.split(",")) for cell in corpus.warnings))
    return {
        "messages": len(corpus) + len(quarantine) + len(unlabelled),
        "corpus": len(corpus),
        "known": int(corpus.known.sum()),
        "future": int((~corpus.known).sum()),
        "unlabelled": len(unlabelled),
        "labels_without_file": int(without_file.sum()),
        "quarantined": quarantine.reason.value_counts().sort_index().to_dict(),
        "labels": corpus.label.value_counts().sort_index().to_dict(),
        "sources": corpus.source.value_counts().sort_index().to_dict(),
        "warnings": dict(sorted(warnings.items())),
    } | ({"files": len(files), "boxes": len(boxes), "in_boxes": sum(boxes)} if files else {})


def nothing_left(quarantine: pd.DataFrame, unlabelled: pd.DataFrame) -> str:
    """Why the corpus is empty: the three commonest reasons with their counts."""
    reasons = Counter([*quarantine.reason, *["no_label"] * len(unlabelled)])
    seen = sum(count for reason, count in reasons.items() if reason != LABEL_WITHOUT_FILE)
    said = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    others = f" and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    return f"none of {seen} messages could be read and has a label: {said}{others}"


def ingest(settings: Ingest, paths: Paths) -> None:
    """Read the source into data/corpus.parquet; what cannot be read goes to the quarantine with its reason."""
    rows = chain(map(not_feedback, read_source(settings, paths)), read_feedback(Path(settings.feedback)))
    files: Counter[str] = Counter()
    shown = tqdm(counted(rows, files), desc="ingest", unit=" messages", mininterval=1)
    corpus, quarantine, unlabelled = collect(shown, as_time(settings.until), settings.feedback_weight, settings.label_mix_prior)
    if corpus.empty:
        raise StageError(f"ingest.path = {settings.path}: {nothing_left(quarantine, unlabelled)}")
    if not corpus.known.any():
        raise StageError(f"ingest.until = {settings.until}: nothing was received before it")
    with atomic_write(paths.corpus) as temporary:
        corpus.to_parquet(temporary, index=False)
    with atomic_write(paths.corpus.with_name("unlabelled.parquet")) as temporary:
        unlabelled.to_parquet(temporary, index=False)
    with atomic_write(paths.quarantine / "ingest.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    write_json(paths.report("ingest.json"), account(corpus, quarantine, unlabelled, files))
    if without_file := list(quarantine.id[quarantine.reason == LABEL_WITHOUT_FILE]):
        print(f"{len(without_file)} rows of {settings.label_table} match no file, the first is {without_file[0]!r}")


if __name__ == "__main__":
    run(ingest, Ingest)
