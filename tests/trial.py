"""A small world for the gate: messages, a champion that knows the first weeks, a challenger that knows more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from service.decision import softmax
from service.kinds.text_classification.scorer import Student
from tasks.data.grouping import split_of
from tasks.files import read_json, write_json
from tasks.lineage import package_versions, sha256
from tasks.release.gate import Gate, Report, gate
from tasks.release.package import seal
from tests.conftest import made_release, made_table
from tests.imports import MAIL

SHARES = {"golden": 0.15, "test": 0.15, "valid": 0.15}
CHAMPION_KNOWS = pd.Timestamp("2020-01-20", tz="UTC")
CHALLENGER_KNOWS = pd.Timestamp("2020-02-10", tz="UTC")
PARAMS: dict[str, Any] = yaml.safe_load((MAIL / "params.yaml").read_text())
DEFAULTS: dict[str, Any] = PARAMS["gate"]


def messages(labels: list[str], rows: int = 1200, until: pd.Timestamp = CHALLENGER_KNOWS) -> pd.DataFrame:
    """Prepared messages as of a snapshot, one an hour; what came after it is the future."""
    frame = made_table(labels, rows, seed=5)
    order = {label: number for number, label in enumerate(labels)}
    known = frame.received < until
    return (
        frame.assign(
            source=["group-" + str(number % 2) for number in range(rows)],
            label_id=frame.label.map(order),
            group=frame.id,
            split=[split_of(name, SHARES) if before else "future" for name, before in zip(frame.id, known, strict=True)],
            raw=frame.text,
            weight=1.0,
        )
        .drop(columns="subject")
        .rename(columns={"text": "input"})
    )


def with_feedback(frame: pd.DataFrame, rows: int, flipped: float) -> pd.DataFrame:
    """Known messages whose label a reviewer gave, this share of them wrongly; spread over all splits."""
    rng = np.random.default_rng(3)
    known = frame.index[(frame.received >= CHAMPION_KNOWS) & (frame.split != "future")]
    chosen = rng.choice(known, rows, replace=False)
    wrong = chosen[: round(flipped * rows)]
    frame = frame.copy()
    frame.loc[chosen, "source"] = "feedback"
    frame.loc[wrong, "label_id"] = 1 - frame.loc[wrong, "label_id"]
    frame.loc[wrong, "label"] = frame.loc[wrong, "label_id"].map(dict(enumerate(sorted(frame.label.unique()))))
    return frame


@dataclass
class Trial:
    """Two releases and the messages that judge them, as files that a test may spoil."""

    root: Path
    student: Path
    labels: list[str]
    positive: str | None

    def __post_init__(self) -> None:
        self.champion, self.challenger = self.root / "champion", self.root / "release"
        self.prepared = self.root / "data/prepared.parquet"
        self.prepared.parent.mkdir(parents=True)
        self.say(messages(self.labels))
        self.make(self.champion, CHAMPION_KNOWS, self.student)
        self.make(self.challenger, CHALLENGER_KNOWS, self.student)

    def say(self, frame: pd.DataFrame) -> None:
        frame.to_parquet(self.prepared)
        if self.challenger.exists():
            self.change(self.challenger, "lineage.json", {"data": {"prepared.parquet": sha256(self.prepared)}})

    def make(self, folder: Path, until: pd.Timestamp, student: Path) -> None:
        made_release(student, folder)
        labels = {"labels": self.labels, "positive": self.positive}
        own = {"ingest": {"until": until.isoformat()}, "prepare": {"splits": SHARES}}
        lineage = {
            "params": {name: PARAMS[name] | own.get(name, {}) for name in ("ingest", "prepare", "evaluate")},
            "data": {"prepared.parquet": sha256(self.prepared)},
            "mlflow": {"evaluate": {"pipeline": "unknown"}},
            "git_commit": "none",
            "packages": package_versions(),
        }
        write_json(folder / "lineage.json", lineage)
        self.change(folder, "settings.json", labels)

    def change(self, folder: Path, name: str, values: Mapping[str, Any]) -> None:
        """Write other values into a file of a release, with the probes that then belong to it, and seal it again."""
        write_json(folder / name, read_json(folder / name) | dict(values))
        if name == "settings.json":
            packed, temperature = read_json(folder / "probes.json"), read_json(folder / name)["temperature"]
            answers = softmax(Student(folder / "model").logits([probe["input"] for probe in packed["probes"]]), temperature)
            for probe, row in zip(packed["probes"], answers, strict=True):
                probe["probabilities"] = row.tolist()
            write_json(folder / "probes.json", packed)
        seal(folder)

    def judge(self, bootstrap: bool = False, **blocks: Mapping[str, Any]) -> Report:
        """The gate's report under the project's own settings, but for ``blocks``."""
        values = DEFAULTS | {name: DEFAULTS[name] | dict(changes) for name, changes in blocks.items()}
        champion = None if bootstrap else self.champion
        return gate(Gate.model_validate(values), self.challenger, champion, self.prepared, bootstrap=bootstrap)
