"""The block ``monitor`` of ``params.yaml``: how windows are cut, measured and reported, and what their limits are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.monitor.health import Limits
from tasks.monitor.signals import Signals
from tasks.monitor.windows import Windows
from tasks.stage import Settings


class Report(Settings):
    windows: int = Field(ge=1)
    """Windows that are merged: below some 500 messages distances are mostly noise."""
    method: Literal["wasserstein", "jensenshannon", "psi"]
    threshold: float = Field(gt=0)
    share: float = Field(gt=0, le=1)
    keep: int = Field(ge=1)
    """Reports that are kept, as files and in the workspace."""


class Monitor(Settings):
    windows: Windows
    signals: Signals
    limits: Limits
    report: Report
