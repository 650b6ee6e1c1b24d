"""Settings of the stages ingest, validate and prepare for texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.data import settings
from tasks.data.check_result import Bound
from tasks.stage import Settings


class Columns(Settings):
    """The table's column names for our fields; null where it has none."""

    id: str | None
    received: str | None
    source: str | None
    label: str
    subject: str | None
    text: str


class Ingest(settings.Ingest):
    source: Literal["npm", "table", "folder"]
    """What ``path`` is: an npm pointer file, a table (CSV, JSON Lines, Parquet) or a folder of raw messages."""
    labels: dict[str, str]
    """npm and folder: the label of each source group; a group not listed is a label of its own."""
    label_table: str | None
    """folder: a CSV below ``path`` with the columns file,label, in place of ``labels``."""
    columns: Columns


class RowRules(settings.RowRules):
    characters_min: int
    characters_max: int
    replacement_share_max: float
    """Share of U+FFFD among a text's characters: bytes that could not be decoded."""


class Validate(settings.Validate):
    row_rules: RowRules
    characters_mean: Bound
    replacement_share: Bound


class NearDuplicates(settings.NearDuplicates):
    shingle_words: int = Field(ge=1)


class Prepare(settings.Prepare):
    missing: Literal["empty", "quarantine"]
    """A missing subject or text: treated as empty, or the message goes to the quarantine."""
    normalise: list[str]
    """Steps of service.kinds.text_classification.text.STEPS, in order."""
    redact: list[str]
    """Strings to remove from every text: names that give the corpus away."""
    characters: int = Field(ge=1)
    """Longest text, in characters; the rest is cut off."""
    near_duplicates: NearDuplicates
