"""The learning rate over the steps of a training."""

from __future__ import annotations

from typing import Any


def schedule(steps: int, warmup_share: float) -> Any:
    """Learning-rate factor by step: linear from 0 up to 1, then linear down to 0."""
    warmup = max(1, round(steps * warmup_share))
    return lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
