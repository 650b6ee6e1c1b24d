"""What the stage validate is told, and what its rules look at: the settings and the measures of each row."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from tasks.data.check_result import Bound
from tasks.data.sources import FEEDBACK
from tasks.stage import Settings


class RowRules(Settings):
    """What each single row must be; a row that is not goes to the quarantine."""

    received_from: datetime | None
    received_until: datetime | None
    """Of what has a time; null: any."""
    characters_min: int
    characters_max: int
    replacement_share_max: float
    """Share of U+FFFD among a text's characters: what could not be decoded."""


class Validate(Settings):
    labels: list[str]
    row_rules: RowRules
    rows: Bound
    label_share: Bound
    """Of each label."""
    missing_time_share: Bound
    characters_mean: Bound
    replacement_share: Bound
    warning_share: Bound
    """Share of messages that were parsed with a warning."""
    duplicate_share: Bound
    """Share of messages whose subject and text stood before."""


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    """What the rules look at, one row a message and no text: id, label, received, characters, ..."""
    text = corpus.text.fillna("")
    length = text.str.len() + corpus.subject.fillna("").str.len()
    return pd.DataFrame(
        {
            "id": corpus.id,
            "label": corpus.label,
            # The time of feedback is the clock's or what a message claims; nothing is decided by it, and no rule asks for it.
            "received": corpus.received.where(corpus.source != FEEDBACK),
            "characters": length,
            "replacement_share": text.str.count("\ufffd") / length.clip(lower=1),
            "warned": corpus.warnings.str.replace(r"time_from_\w+,?", "", regex=True).ne("").astype(int),
            "duplicate": corpus.duplicated(["subject", "text"]).astype(int),
            "time_missing": corpus.received.isna().astype(int),
        }
    )
