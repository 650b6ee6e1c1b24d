"""What the models of a replay know, and the stream that follows: cut at a time, or drawn at random and then changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from service.kinds import Serving
from tasks.kinds import replay_part
from tasks.stage import Settings, StageError


class Change(Settings):
    """Inputs of the stream that are changed, with their labels kept."""

    change: str
    """A name of the kind's ``replay.CHANGES``."""
    start: int = Field(ge=0)
    """Inputs of the stream before it begins."""
    end: int | None
    """Inputs of the stream after which it has ended; null: never."""
    share: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _ends_later(self) -> Change:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end = {self.end} is not after start = {self.start}")
        return self


class Drawn(Settings):
    """A stream from data without times."""

    known: int = Field(ge=1)
    """Rows that the first training knows."""
    stream: int = Field(ge=1)
    changes: tuple[Change, ...]
    """In the order in which they are made; where two are at work, an input may get both."""


def draw(corpus: pd.DataFrame, settings: Drawn, kind: str, serving: Serving, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(known rows, stream) of ``corpus``, which share no row. ``serving`` is of ``kind``. Raises StageError."""
    changes = replay_part(kind).CHANGES
    for entry in settings.changes:
        if entry.change not in changes:
            raise StageError(f"replay.drawn.changes: {entry.change!r}: expected one of {', '.join(changes)}")
        if entry.start >= settings.stream:
            raise StageError(f"replay.drawn.changes: {entry.change}: start = {entry.start}, but stream = {settings.stream}")
    if (wanted := settings.known + settings.stream) > len(corpus):
        raise StageError(
            f"replay.drawn: known = {settings.known} and stream = {settings.stream} are {wanted} rows, and the source has "
            f"{len(corpus)}: lower them"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(corpus))[:wanted]
    known, stream = corpus.iloc[np.sort(order[: settings.known])], corpus.iloc[order[settings.known :]]
    return known, _changed(stream.reset_index(drop=True), settings.changes, kind, serving, rng)


def _changed(
    stream: pd.DataFrame, changes: Sequence[Change], kind: str, serving: Serving, rng: np.random.Generator
) -> pd.DataFrame:
    """The stream with all changes made."""
    part = replay_part(kind)
    rows: list[dict[str, Any]] = stream.to_dict("records")  # type: ignore[assignment]
    for entry in changes:
        for row in rows[entry.start : entry.end]:
            if rng.random() < entry.share:
                row.update(part.as_content(part.CHANGES[entry.change](serving.raw_of(row), rng)))
    return pd.DataFrame(rows, columns=stream.columns)
