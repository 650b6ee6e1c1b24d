"""Stage ingest: read a source of labelled rows into one Parquet file; every record is accounted for.

Each record of the source ends in one of three files: the corpus, the unlabelled rows, or the quarantine with a reason.
Unlabelled rows received before ``until`` may still train a student, on the teacher's logits. The corpus also holds the
rows received after ``until``, marked as not ``known``: they are future traffic for a model trained on the snapshot, and
only evaluate uses them. Feedback of reviewers is always known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tasks.data.rows import not_feedback, with_unique_ids, with_valid_unicode
from tasks.data.settings import Ingest
from tasks.data.sources import FEEDBACK, LABEL_WITHOUT_FILE, Rejected, Row
from tasks.data.tables import read_feedback
from tasks.files import atomic_write, write_json
from tasks.kinds import data_part, kind_of, settings_of
from tasks.stage import Paths, StageError, as_time, run


def label_weights(source: pd.Series, feedback: pd.Series, prior: float) -> dict[str, float]:
    """The weight of a row of each label of the source that corrects for label shift.

    Scores are calibrated, and a threshold is optimal, only for the label mix of the training data, and the mix changes first
    (Saerens, Latinne and Decaestecker 2002). The current mix is estimated from feedback, with the source's own mix as a
    Dirichlet prior worth ``prior`` rows. Without feedback: 1.
    """
    if feedback.empty:
        return dict.fromkeys(source.unique(), 1.0)
    feedback_counts, source_shares = feedback.value_counts(), source.value_counts(normalize=True)
    total = sum(int(feedback_counts.get(label, 0)) for label in source_shares.index) + prior
    return {
        str(label): (int(feedback_counts.get(label, 0)) + prior * share) / total / share
        for label, share in source_shares.items()
    }


def collect(
    rows: Iterable[Row | Rejected],
    content: Sequence[str],
    until: datetime | None,
    feedback_weight: float,
    label_mix_prior: float | None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(corpus, quarantine, unlabelled), one row per record; ``content`` names the columns of the kind.

    The corpus holds known rows of the source, then feedback, then future rows, each sorted by time and id.

    Corpus columns: id, received (UTC, may be missing), source, label, the content, warnings (joined by a comma), known
    (feedback, or received before ``until``, or without a time), weight. Quarantine: id, source, reason. Unlabelled: id,
    received, source, the content.
    """
    labelled_rows: list[Row] = []
    unlabelled: list[Row] = []
    rejected: list[Rejected] = []
    for row in with_unique_ids(map(with_valid_unicode, rows)):
        if isinstance(row, Rejected):
            rejected.append(row)
        elif row.label is not None:
            labelled_rows.append(row)
        elif row.source == FEEDBACK or (until and row.received and row.received >= until):
            rejected.append(Rejected(row.id, row.source, "no_label"))
        else:
            unlabelled.append(row)
    corpus = _table(labelled_rows, content)
    corpus.insert(3, "label", [row.label for row in labelled_rows])
    corpus["warnings"] = [",".join(row.warnings) for row in labelled_rows]
    is_feedback = corpus.source == FEEDBACK
    corpus["known"] = is_feedback | ~(corpus.received >= until) if until else True
    corpus["weight"] = np.where(is_feedback, feedback_weight, 1.0)
    if label_mix_prior is not None:
        known_source = corpus.known & ~is_feedback
        weights = label_weights(corpus.label[known_source], corpus.label[is_feedback], label_mix_prior)
        corpus.loc[known_source, "weight"] = corpus.label[known_source].map(weights)
    # Later rows join existing groups: sorted last, feedback cannot change golden, whatever its Date says.
    sort_keys = corpus.assign(future=~corpus.known.astype(bool), fed_back=is_feedback)
    corpus = corpus.loc[sort_keys.sort_values(["future", "fed_back", "received", "id"], na_position="first").index]
    corpus = corpus.reset_index(drop=True)
    quarantine = pd.DataFrame([vars(row) for row in rejected], columns=["id", "source", "reason"])
    return (
        corpus,
        quarantine,
        _table(unlabelled, content).sort_values(["received", "id"], na_position="first", ignore_index=True),
    )


def _table(rows: list[Row], content: Sequence[str]) -> pd.DataFrame:
    """The columns of each row except its label. Times are in microseconds: pandas' nanoseconds end in 2262."""
    times = [row.received.astimezone(UTC).replace(tzinfo=None) if row.received else None for row in rows]
    return pd.DataFrame(
        {
            "id": [row.id for row in rows],
            "received": pd.Series(np.array(times, dtype="datetime64[us]")).dt.tz_localize("UTC"),
            "source": [row.source for row in rows],
        }
        | {name: [row.content[name] for row in rows] for name in content}
    )


def count_files(rows: Iterable[Row | Rejected], files: Counter[str]) -> Iterator[Row | Rejected]:
    """Pass the rows through, and count the rows of each file in ``files``."""
    for row in rows:
        if row.file:
            files[row.file] += 1
        yield row


def account(corpus: pd.DataFrame, quarantine: pd.DataFrame, unlabelled: pd.DataFrame, files: Counter[str]) -> dict[str, object]:
    """The count of records by outcome, for the report. Rows of a label table without a file are not records.

    Where files are records, the source has ``files - boxes + in_boxes``: each file is one row, or one of ``boxes``,
    which together are ``in_boxes`` rows.
    """
    boxes = [rows for rows in files.values() if rows > 1]
    without_file = quarantine.reason == LABEL_WITHOUT_FILE
    quarantine = quarantine[~without_file]
    warnings = Counter(chain.from_iterable(filter(None, cell.split(",")) for cell in corpus.warnings))
    return {
        "rows": len(corpus) + len(quarantine) + len(unlabelled),
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


def why_empty(quarantine: pd.DataFrame, unlabelled: pd.DataFrame) -> str:
    """Why the corpus is empty: the three most common reasons with their counts."""
    reasons = Counter([*quarantine.reason, *["no_label"] * len(unlabelled)])
    total = sum(count for reason, count in reasons.items() if reason != LABEL_WITHOUT_FILE)
    top = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
    others = f" and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
    return f"none of {total} rows could be read and has a label: {top}{others}"


def ingest(settings: Ingest, paths: Paths) -> None:
    """Read the source into data/corpus.parquet; what cannot be read goes to the quarantine with its reason."""
    kind = data_part(kind_of(paths))
    rows = chain(map(not_feedback, kind.read(settings, paths)), read_feedback(Path(settings.feedback), kind.content_of))
    files: Counter[str] = Counter()
    progress = tqdm(count_files(rows, files), desc="ingest", unit=" rows", mininterval=1)
    corpus, quarantine, unlabelled = collect(
        progress, kind.CONTENT, as_time(settings.until), settings.feedback_weight, settings.label_mix_prior
    )
    if corpus.empty:
        raise StageError(f"ingest.path = {settings.path}: {why_empty(quarantine, unlabelled)}")
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
        table = quarantine.source[quarantine.reason == LABEL_WITHOUT_FILE].iloc[0]
        print(f"{len(without_file)} rows of {table} match no file, the first is {without_file[0]!r}")


if __name__ == "__main__":
    run(ingest, settings_of("ingest"))
