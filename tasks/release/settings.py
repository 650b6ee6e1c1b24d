"""Settings of the stage package that every kind has; a kind's subclass adds its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.release.choice import Choice
from tasks.stage import Settings


class ServingLimits(Settings):
    """What one request may bring."""

    batch: int
    body_bytes: int


class Package(Choice):
    reference_splits: list[Literal["valid", "test", "golden"]] = Field(min_length=1)
    """The splits whose descriptors, scores and features are the reference for drift: what training did not learn from."""
    probes: int = Field(ge=1)
    probe_tolerance: float
    """Largest difference of a probe's probability that a serving host may show."""
    limits: ServingLimits
