"""Settings of the stage validate, and the measures of each row that its rules check."""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from tasks.data.check_result import Bound
from tasks.data.sources import FEEDBACK
from tasks.stage import Settings


class RowRules(Settings):
    """Rules for each single row; a row that breaks one goes to the quarantine."""

    received_from: datetime | None
    received_until: datetime | None
    """For rows that have a time; null: no bound."""
    characters_min: int
    characters_max: int
    replacement_share_max: float
    """Share of U+FFFD among a text's characters: bytes that could not be decoded."""


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
    """Share of messages whose subject and text occurred before."""


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    """The measures that the rules check, one row per message and no text: id, label, received, characters, ..."""
    text = corpus.text.fillna("")
    length = text.str.len() + corpus.subject.fillna("").str.len()
    return pd.DataFrame(
        {
            "id": corpus.id,
            "label": corpus.label,
            # The time of feedback is a clock's or the message's own claim; nothing depends on it, so no rule checks it.
            "received": corpus.received.where(corpus.source != FEEDBACK),
            "characters": length,
            "replacement_share": text.str.count("\ufffd") / length.clip(lower=1),
            "warned": corpus.warnings.str.replace(r"time_from_\w+,?", "", regex=True).ne("").astype(int),
            "duplicate": corpus.duplicated(["subject", "text"]).astype(int),
            "time_missing": corpus.received.isna().astype(int),
        }
    )
