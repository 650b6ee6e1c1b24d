"""The evaluation set of a release, kept for as long as the release may serve, and what reviewers have labelled since.

A recalibration has no snapshot of its own: it is judged on the rows of the release that it starts from and on the labels
that came since. Each of these is put where ``prepare`` would put it: into the group of the row that it resembles, and
so into that one's split, else into the split of its own hash.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from service.release import Release
from service.store import Pointer
from tasks.data.grouping import group_of_each, split_of
from tasks.data.sources import FEEDBACK
from tasks.files import atomic_write, read_json
from tasks.kinds import data_part, settings_class
from tasks.lineage import sha256
from tasks.stage import Paths, StageError

FOLDER = "judged"
SPLITS = ("train", "valid", "test", "golden")
"""Where a row with a confirmed label may be."""


def keep(paths: Paths, release: str, prepared: Path, pointer: Pointer | None) -> None:
    """Keep the rows that judged ``release``; those of releases that serve no more, nor can be gone back to, go."""
    folder = paths.home / FOLDER
    with atomic_write(folder / f"{release}.parquet") as temporary:
        shutil.copyfile(prepared, temporary)
    staying = {release} | ({pointer.champion, pointer.previous} if pointer is not None else set())
    for path in folder.glob("*.parquet"):
        if path.stem not in staying:
            path.unlink()


def kept(paths: Paths, folder: Path, release: str) -> pd.DataFrame:
    """The rows that judged the release in ``folder``. Raises StageError where they are gone, or were changed."""
    wanted = read_json(folder / "lineage.json")["data"]["prepared.parquet"]
    for path in (paths.home / FOLDER / f"{release}.parquet", paths.prepared):
        if path.exists() and sha256(path) == wanted:
            return pd.read_parquet(path).reset_index(drop=True)
    raise StageError(f"release {release}: the rows that it was judged on are neither in {paths.home / FOLDER} nor in data/")


def with_labels(
    known: pd.DataFrame, feedback: pd.DataFrame, release: Release, params: Mapping[str, Any], until: pd.Timestamp
) -> tuple[pd.DataFrame, int]:
    """(``known`` and behind it the labelled rows that are new, how many these are).

    ``feedback``: id, received, label and the content, as ``tasks.data.feedback.collect`` gives them. ``params`` are those
    that the release was made with. What the release has no label for, or finds nothing to read in, is left out, and
    so is a copy of a known input and what resembles rows of two splits, or of the future.
    """
    rows = feedback[~feedback.id.isin(known.id) & feedback.label.isin(release.labels)].reset_index(drop=True)
    kind = data_part(release.kind)
    raw = [
        release.serving.raw_of(kind.content_of(dict(zip(kind.CONTENT, content, strict=True))))
        for content in rows[list(kind.CONTENT)].to_numpy()
    ]
    received = pd.to_datetime(rows.received, utc=True, format="ISO8601", errors="coerce").fillna(until)
    order = {label: number for number, label in enumerate(release.labels)}
    rows = rows[["id", "label"]].assign(
        received=received.astype(known.received.dtype),
        source=FEEDBACK,
        label_id=rows.label.map(order).astype(np.int64),
        raw=raw,
        input=[release.preprocess(one) for one in raw],
        weight=float(params["ingest"]["feedback_weight"]),
    )
    rows = rows[rows.input.map(bool).astype(bool) & ~rows.input.isin(known.input) & ~rows.duplicated("input")]
    rows = _placed(known, rows.reset_index(drop=True), release.kind, params["prepare"])
    return pd.concat([known, rows[list(known.columns)]], ignore_index=True), len(rows)


def _placed(known: pd.DataFrame, rows: pd.DataFrame, kind: str, prepare: Mapping[str, Any]) -> pd.DataFrame:
    """``rows`` with group and split, without those that belong to none."""
    settings = settings_class(kind, "prepare").model_validate(prepare)
    shares, near, grouped = prepare["splits"], settings.near_duplicates, known[known.group != ""]
    fingerprints = (data_part(kind).fingerprint(given, settings) for given in [*grouped.input, *rows.input])
    groups = group_of_each([*grouped.group, *rows.id], fingerprints, near, shares)[len(grouped) :]
    taken: dict[str, set[str]] = {}
    for group, split in zip(grouped.group, grouped.split, strict=True):
        taken.setdefault(group, set()).add(split)
    splits = []
    for group in groups:
        there = taken.get(group) if group is not None else None
        splits.append("" if group is None else split_of(group, shares) if there is None else _only(there))
    return rows.assign(group=[group or "" for group in groups], split=splits)[np.isin(splits, SPLITS)]


def _only(splits: set[str]) -> str:
    """The split of a group that is in one; of one that is in several, or in the future too, none."""
    return next(iter(splits)) if len(splits) == 1 else ""
