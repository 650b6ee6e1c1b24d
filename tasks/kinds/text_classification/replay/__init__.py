"""Text classification, its replay part: changes of the traffic that a monitor must see (``tasks.kinds.ReplayPart``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tasks.kinds.text_classification.data import CONTENT
from tasks.kinds.text_classification.replay.campaigns import CAMPAIGNS, message


def _campaign(raw: str, rng: np.random.Generator) -> str:
    """A message of a campaign that training never saw, in place of ``raw``."""
    return message(CAMPAIGNS[0], rng)


CHANGES: Mapping[str, Callable[[str, np.random.Generator], str]] = {"of an unseen campaign": _campaign}


def as_request(raw: str) -> dict[str, str]:
    return {"text": raw}


def as_content(raw: str) -> dict[str, str]:
    return {"subject": "", "text": raw}


def ingest_table(path: str) -> dict[str, Any]:
    columns = {name: name for name in ("id", "received", "source", "label", *CONTENT)}
    return {"source": "table", "path": path, "labels": {}, "label_table": None, "columns": columns}
