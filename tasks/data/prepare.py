"""Stage prepare: make checked rows into model inputs, and split them without leakage.

The inputs are made by the kind's serving half, the same code as in serving. Splits go by near-duplicate group (see
``tasks.data.grouping``): golden, test, valid and train by a stable hash, so golden is the same share in every snapshot.
Rows received after ``ingest.until`` are ``future``, unless they are copies of known ones. Rows without a label are
``unlabelled``, unless they resemble held-out ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tasks.data.grouping import group_of_each, split_of
from tasks.data.settings import Prepare
from tasks.data.sources import FEEDBACK
from tasks.files import atomic_write, write_json
from tasks.kinds import DataPart, data_part, kind_of, settings_of
from tasks.stage import Paths, StageError, run

MEASURED = ("valid", "test", "golden", "future")
"""Held-out splits: no student may be trained on them, with or without labels."""


def with_inputs(rows: pd.DataFrame, settings: Prepare, kind: DataPart) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """(rows with ``raw`` and ``input``, quarantine, the kind's counts). Raises ValueError for a parameter that cannot be."""
    prepared = kind.prepare_inputs(rows, settings)
    rows = rows.assign(raw=prepared.raws, input=prepared.inputs)
    rejected = pd.Series(prepared.reasons, index=rows.index, dtype=object).dropna()
    quarantine = rows.loc[rejected.index, ["id", "source"]].assign(reason=rejected)
    return rows.drop(index=rejected.index), quarantine, prepared.counts


def drop_copies(rows: pd.DataFrame, settings: Prepare) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rows, quarantine): of equal inputs the first is kept, and none of those known under two labels.

    It runs after grouping: a dropped row must not take its group's name, and so its split, with it. Later rows may not
    invalidate earlier ones: feedback is compared with the source's known rows, and future rows with both, not the reverse.
    """
    reason = pd.Series(index=rows.index, dtype=object)
    labelled = rows.label.notna()
    for reference in (rows.known & (rows.source != FEEDBACK), rows.known):
        labels = rows.label.where(reference & reason.isna()).groupby(rows.input)
        first_label, differing = labels.transform("first").fillna(rows.label), labels.transform("nunique")
        reason[reason.isna() & labelled & ((differing > 1) | (rows.label != first_label))] = "same_input_other_label"
    if settings.duplicates == "drop":
        reason[reason.isna() & rows.duplicated("input")] = "duplicate"
    rejected = reason.dropna()
    return rows.drop(index=rejected.index), rows.loc[rejected.index, ["id", "source"]].assign(reason=rejected)


def assign_splits(rows: pd.DataFrame, settings: Prepare, kind: DataPart) -> pd.DataFrame:
    """``rows`` (oldest first, unlabelled ones last) with the columns ``group`` and ``split``.

    Splits: train, valid, test, golden, future, seen, bridge, unlabelled, or measured: unlabelled and like a held-out row.
    """
    shares = settings.splits.model_dump()
    fingerprints = (kind.fingerprint(model_input, settings) for model_input in rows.input)
    groups = group_of_each(list(rows.id), fingerprints, settings.near_duplicates, shares)
    known_groups = {group for group, known in zip(groups, rows.known, strict=True) if known}
    splits: list[str] = []
    measured: set[str | None] = set()
    for group, known, label in zip(groups, rows.known, rows.label, strict=True):
        if group is None:
            splits.append("bridge")
        elif pd.isna(label):
            splits.append("measured" if group in measured else "unlabelled")
        elif known:
            splits.append(split_of(group, shares))
        else:
            splits.append("seen" if group in known_groups else "future")
        if splits[-1] in MEASURED:
            measured.add(group)
    return rows.assign(group=[group or "" for group in groups], split=splits)


def schema(rows: pd.DataFrame, settings: Prepare, kind: str) -> dict[str, object]:
    """The data schema for later stages and the service: the kind, the labels in order, and how inputs are made."""
    labels = sorted(rows.label[rows.split == "train"].unique())
    if len(labels) < 2:
        raise StageError(f"the train split holds the labels {labels}: a classifier needs two at least")
    too_few = sorted(split for split in ("valid", "test", "golden") if rows.label[rows.split == split].nunique() < 2)
    if too_few:
        raise StageError(f"the splits {too_few} do not hold two labels: more data or larger prepare.splits")
    if settings.positive is not None and (settings.positive not in labels or len(labels) > 2):
        raise StageError(f"prepare.positive = {settings.positive!r}: the labels are {labels}; null, or one of two")
    return {"kind": kind, "labels": labels, "positive": settings.positive} | data_part(kind).serving_settings(settings)


def labels_missing(rows: pd.DataFrame, labels: list[str]) -> dict[str, list[str]]:
    """Split -> labels of which it holds no row, for splits that lack any: their figures do not cover these labels."""
    labels_by_split = {split: set(rows.label[rows.split == split]) for split in MEASURED if (rows.split == split).any()}
    return {split: missing for split, present in labels_by_split.items() if (missing := sorted(set(labels) - present))}


def prepare(settings: Prepare, paths: Paths) -> None:
    """Make inputs of the validated rows, drop copies, group near-duplicates, split; the report counts what each step did."""
    kind = kind_of(paths)
    unlabelled = pd.read_parquet(paths.corpus.with_name("unlabelled.parquet"))
    rows = pd.read_parquet(paths.validated)
    if len(unlabelled):
        rows = pd.concat([rows, unlabelled.assign(label=None, known=False, weight=1.0)], ignore_index=True)
    try:
        rows, quarantine, counts = with_inputs(rows, settings, data_part(kind))
    except ValueError as error:
        raise StageError(f"prepare.{error}") from error
    rows, copies = drop_copies(assign_splits(rows, settings, data_part(kind)), settings)
    data_schema = schema(rows, settings, kind)
    # A label that is not in train cannot be predicted, so it must not be in another split.
    unknown = rows.label.notna() & ~rows.label.isin(data_schema["labels"])  # type: ignore[arg-type]
    quarantine = pd.concat([quarantine, copies, rows.loc[unknown, ["id", "source"]].assign(reason="label_not_in_train")])
    held_out = rows.split == "measured"
    quarantine = pd.concat([quarantine, rows.loc[held_out, ["id", "source"]].assign(reason="unlabelled_like_held_out")])
    rows = rows[~unknown & ~held_out]
    label_id = rows.label.map({label: number for number, label in enumerate(data_schema["labels"])})  # type: ignore[arg-type,var-annotated]
    columns = ["id", "received", "source", "label", "label_id", "group", "split", "raw", "input", "weight"]
    with atomic_write(paths.prepared) as temporary:
        rows.assign(label_id=label_id.fillna(-1).astype(np.int64))[columns].to_parquet(temporary, index=False)
    with atomic_write(paths.quarantine / "prepare.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    write_json(paths.schema, data_schema)
    missing = labels_missing(rows, data_schema["labels"])  # type: ignore[arg-type]
    table = rows.assign(label=rows.label.fillna("(none)")).groupby(["split", "label"]).size()
    sizes = rows.groupby("group").size()
    write_json(
        paths.report("prepare.json"),
        {
            "steps": counts,
            "quarantined": quarantine.reason.value_counts().sort_index().to_dict(),
            "groups": {"count": int((sizes.index != "").sum()), "largest": int(sizes.drop("", errors="ignore").max())},
            "splits": {split: table[split].to_dict() for split in sorted(rows.split.unique())},
            "labels_missing": missing,
        },
    )
    print(f"{len(rows)} rows: " + ", ".join(f"{split} {n}" for split, n in rows.split.value_counts().items()))
    for split, names in missing.items():
        print(f"{split} holds no row of {len(names)} labels, and its figures say nothing of them: {', '.join(names)[:300]}")


if __name__ == "__main__":
    run(prepare, settings_of("prepare"))
