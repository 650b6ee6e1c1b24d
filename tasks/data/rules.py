"""The measures of each row that the rules of the stage validate check."""

from __future__ import annotations

import pandas as pd

from tasks.data.sources import FEEDBACK
from tasks.kinds import DataPart


def measure(corpus: pd.DataFrame, kind: DataPart) -> pd.DataFrame:
    """One row per row and nothing of its content: id, label, received, warned, time_missing, and what the kind measures."""
    rows = pd.DataFrame(
        {
            "id": corpus.id,
            "label": corpus.label,
            # The time of feedback is a clock's or the input's own claim; nothing depends on it, so no rule checks it.
            "received": corpus.received.where(corpus.source != FEEDBACK),
            "warned": corpus.warnings.str.replace(r"time_from_\w+,?", "", regex=True).ne("").astype(int),
            "time_missing": corpus.received.isna().astype(int),
        }
    )
    return pd.concat([rows, kind.measure(corpus)], axis=1)
