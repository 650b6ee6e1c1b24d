"""What a gate looks at: challenger, champion, the rows that neither learned from, and what both answer to them.

Everything is worked out when a check first asks for it. What cannot be worked out raises, and fails that check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.release import Release
from tasks.data.grouping import split_of
from tasks.files import read_json
from tasks.lineage import sha256

GATE_SPLITS = ("test", "golden")
"""Splits that choose nothing: neither weights, nor temperature, nor threshold."""
NEVER = -1e9
"""The logit of a label that a release does not know."""


class Party:
    """One of the two releases, with what it says of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.release = Release(folder)
        self.lineage: Mapping[str, Any] = read_json(folder / "lineage.json")
        settings = read_json(folder / "settings.json")
        self.positive: str | None = settings["positive"]

    @property
    def shares(self) -> Mapping[str, float]:
        """The shares of the splits in which it was trained."""
        found: Mapping[str, float] = self.lineage["params"]["prepare"]["splits"]
        return found

    @property
    def snapshot(self) -> pd.Timestamp:
        """The moment up to which it knows the world: ``ingest.until``, or when it was made where that is null."""
        until = self.lineage["params"]["ingest"]["until"]
        moment = pd.Timestamp(until if until is not None else read_json(self.folder / "card.json")["created"])
        return moment.tz_localize("UTC") if moment.tzinfo is None else moment


@dataclass(frozen=True)
class ReleaseScores:
    """What one release says of some rows; labels are ids of the challenger's labels."""

    answers: npt.NDArray[np.int64]
    """-1 for a label that the challenger does not know."""
    probabilities: npt.NDArray[np.float64]
    logits: npt.NDArray[np.float64]
    """Scaled as the release does it, by temperature and label mix; ``[n, labels]`` as ``probabilities``."""


class Case:
    """The material of one gate. ``champion`` is None where nothing is in service yet; ``window`` its least and most rows."""

    def __init__(
        self, challenger: Path, champion: Path | None, prepared: Path, bootstrap: bool, window: tuple[int, int]
    ) -> None:
        self.folder = challenger
        self.champion_folder = champion
        self.prepared = prepared
        self.bootstrap = bootstrap
        self._least, self._most = window

    @cached_property
    def challenger(self) -> Party:
        return Party(self.folder)

    @cached_property
    def champion(self) -> Party:
        if self.champion_folder is None:
            raise ValueError("there is no champion to compare with")
        return Party(self.champion_folder)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The challenger's prepared rows, ``label_id`` by its own order of labels."""
        if sha256(self.prepared) != self.challenger.lineage["data"]["prepared.parquet"]:
            raise ValueError(f"{self.prepared.name} is not the file that the challenger was made from")
        rows = pd.read_parquet(self.prepared).reset_index(drop=True)
        labels = {label: number for number, label in enumerate(self.challenger.release.labels)}
        if unknown := sorted(set(rows.label) - set(labels)):
            raise ValueError(f"{self.prepared.name} holds the labels {unknown}, which the challenger does not know")
        return rows.assign(label_id=rows.label.map(labels).astype(np.int64))

    @cached_property
    def golden(self) -> pd.DataFrame:
        return _some(self.rows[self.rows.split == "golden"], "golden row")

    @cached_property
    def window(self) -> pd.DataFrame:
        """The newest rows that neither learned from: those received since the champion's snapshot, newest first.

        Labels come late and few: where these are fewer than the least number, the newest of before fill the window up.
        """
        shares = self.champion.shares
        rows = self.rows[self.rows.split.isin(GATE_SPLITS)]
        rows = rows[[split_of(group, shares) in GATE_SPLITS for group in rows.group]]
        rows = rows.sort_values("received", ascending=False, kind="stable")
        fresh = int(self.is_fresh(rows).sum())
        return rows.head(min(max(fresh, self._least), self._most))

    def is_fresh(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which of the rows the champion cannot have known."""
        return np.asarray(rows.received >= self.champion.snapshot)

    @cached_property
    def fresh_and_golden(self) -> pd.DataFrame:
        """The golden rows and those of the window, each once; the golden ones alone before the first promotion."""
        parts = [self.golden] if self.bootstrap else [self.golden, self.window]
        both = pd.concat(parts)
        return both[~both.index.duplicated()]

    @cached_property
    def positive(self) -> int | None:
        name = self.challenger.positive
        return None if name is None else self.challenger.release.labels.index(name)

    def challenged(self, rows: pd.DataFrame) -> ReleaseScores:
        return judge(self.challenger.release, rows, self.challenger.release.labels)

    def defended(self, rows: pd.DataFrame) -> ReleaseScores:
        return judge(self.champion.release, rows, self.challenger.release.labels)


def judge(release: Release, rows: pd.DataFrame, labels: list[str]) -> ReleaseScores:
    """What ``release`` says of the raw inputs of ``rows``, preprocessed in its own way, in terms of ``labels``."""
    inputs = [release.preprocess(raw) for raw in rows.raw]
    order = {label: number for number, label in enumerate(labels)}
    answers = np.array([order.get(answer.label, -1) for answer in release.answer_preprocessed(inputs)], dtype=np.int64)
    own, logits = release.probabilities(inputs), release.scaled(release.model.logits(inputs))
    probabilities, aligned = np.zeros((len(rows), len(labels))), np.full((len(rows), len(labels)), NEVER)
    for column, label in enumerate(release.labels):
        if label in order:
            probabilities[:, order[label]], aligned[:, order[label]] = own[:, column], logits[:, column]
    return ReleaseScores(answers, probabilities, aligned)


def _some(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    if rows.empty:
        raise ValueError(f"there is no {what}")
    return rows
