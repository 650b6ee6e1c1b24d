"""Settings of the stages ingest, validate and prepare that every kind has; a kind's subclasses add its own."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import Field

from tasks.data.check_result import Bound
from tasks.stage import Settings


class Ingest(Settings):
    source: str
    """What ``path`` is; the kind says which there are."""
    path: str
    until: datetime | date | None
    """The snapshot holds what was received before this time (UTC); null: all of the source."""
    feedback: str
    """JSON Lines of inputs labelled by reviewers; an empty file where there are none."""
    feedback_weight: float = Field(gt=0)
    """Weight of a row of feedback: only part of the traffic is labelled, so one stands for several."""
    label_mix_prior: float | None = Field(gt=0)
    """The source's own label mix counts as this many rows of feedback, see ``label_weights``; null: no reweighting."""


class RowRules(Settings):
    """Rules for each single row; a row that breaks one goes to the quarantine."""

    received_from: datetime | None
    received_until: datetime | None
    """For rows that have a time; null: no bound."""


class Validate(Settings):
    labels: list[str]
    row_rules: RowRules
    rows: Bound
    label_share: Bound
    """Of each label."""
    missing_time_share: Bound
    warning_share: Bound
    """Share of rows that were read with a warning."""
    duplicate_share: Bound
    """Share of rows whose content occurred before."""


class NearDuplicates(Settings):
    similarity: float = Field(gt=0, le=1)
    """Jaccard similarity of fingerprints from which two rows count as near-duplicates."""
    permutations: int = Field(ge=16)
    """Of MinHash, which estimates it."""


class Shares(Settings):
    """Shares of the groups; the rest is train. Changing ``golden`` opens the golden set to training."""

    golden: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    valid: float = Field(gt=0, lt=1)


class Prepare(Settings):
    positive: str | None
    """The positive label; null: none is (required for three and more labels)."""
    duplicates: Literal["drop", "keep"]
    """Equal model inputs: keep the first, or keep all. Copies with another label are always dropped."""
    near_duplicates: NearDuplicates
    splits: Shares
