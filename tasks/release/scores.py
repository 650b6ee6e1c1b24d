"""Every variant's logits on every judged row, as evaluate leaves them for the stages that compare variants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.files import atomic_write
from tasks.stage import Paths, StageError

Logits = npt.NDArray[np.float32]

SPLITS = ("valid", "test", "golden", "future")
HELD_OUT = ("test", "golden", "future")
"""Splits that choose nothing."""


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that variants are judged on; the index is the place of their logits."""
    return rows[rows.split.isin(SPLITS)].reset_index(drop=True)


def scores_file(paths: Paths) -> Path:
    """``ids`` str[n], ``variants`` str[v], ``logits`` float32[v, n, labels]."""
    return paths.logits.with_name("scores.npz")


def write_scores(rows: pd.DataFrame, logits: Mapping[str, Logits], paths: Paths) -> None:
    """Keep the logits ``[n, labels]`` of each variant on the judged ``rows``."""
    ids, names = rows.id.to_numpy(dtype=str), np.array(list(logits))
    with atomic_write(scores_file(paths)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, ids=ids, variants=names, logits=np.stack(list(logits.values())))


def read_scores(rows: pd.DataFrame, paths: Paths) -> dict[str, Logits]:
    """The logits of each variant on the judged ``rows``. Raises StageError where they are of other rows."""
    path = scores_file(paths)
    with np.load(path) as stored:
        if not np.array_equal(stored["ids"], rows.id.to_numpy(dtype=str)):
            raise StageError(f"{path.name}: holds the scores of other rows than {paths.prepared.name}: run evaluate again")
        return dict(zip(stored["variants"].tolist(), stored["logits"], strict=True))
