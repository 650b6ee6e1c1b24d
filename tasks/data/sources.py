"""The row types that every reader of a source yields.

A reader yields a ``Row`` for each record it could read and a ``Rejected`` for each it could not, so that counts add up. What
makes the whole source unusable (missing, empty, wrong columns) is a ``StageError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FEEDBACK = "feedback"
"""The source group of inputs that the service answered and a reviewer labelled."""
LABEL_WITHOUT_FILE = "label_without_file"
"""The reason of a row of a label table that matches no file: it is not a record."""


@dataclass(frozen=True)
class Row:
    """One record of a source; ``label`` is None where the source gives none."""

    id: str
    received: datetime | None
    source: str
    label: str | None
    content: Mapping[str, Any]
    """What the model answers to, by the names in the kind's ``CONTENT``: str or bytes."""
    warnings: tuple[str, ...]
    file: str = ""
    """The file it was read from, where each file is a record or holds several."""


@dataclass(frozen=True)
class Rejected:
    """A record that could not be read: its location and the reason, without its content."""

    id: str
    source: str
    reason: str
    file: str = ""
