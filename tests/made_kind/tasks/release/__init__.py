"""Sequence classification, its release part: probes, and what the card says (``tasks.kinds.ReleasePart``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from service.kinds.sequence_classification.packing import NUMBERS, numbers_of, packed

from tasks.release import settings

TASK = "classification of sequences into {labels}"


class ServingLimits(settings.ServingLimits):
    length: int


class Package(settings.Package):
    probe_numbers: int
    """Numbers of a probe."""
    limits: ServingLimits


def probes(rows: pd.DataFrame, settings: Package) -> list[bytes]:
    """Random numbers: they are no row's."""
    rng = np.random.default_rng(settings.seed)
    return [packed(rng.integers(NUMBERS, size=settings.probe_numbers).tolist()) for _ in range(settings.probes)]


def show(raw: bytes) -> dict[str, str]:
    return {"text": " ".join(map(str, numbers_of(raw)))}


def cautions(schema: Mapping[str, Any]) -> list[str]:
    return [f"It reads the first {schema['sequence']['length']} numbers, in whatever order they stand."]
