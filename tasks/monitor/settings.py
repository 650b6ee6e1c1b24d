"""Settings of the block ``monitor`` of ``params.yaml``: cutting, signals, limits and reports of windows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.monitor.health import HealthLimits
from tasks.monitor.policy import Decide
from tasks.monitor.signals import Signals
from tasks.monitor.traffic_windows import TrafficWindows
from tasks.stage import Settings, StageError, read_settings


class Report(Settings):
    windows: int = Field(ge=1)
    """Windows merged into a report: below some 500 answers distances are mostly noise."""
    method: Literal["wasserstein", "jensenshannon", "psi"]
    threshold: float = Field(gt=0)
    share: float = Field(gt=0, le=1)
    keep: int = Field(ge=1)
    """Number of reports kept, as files and in the workspace."""


class Monitor(Settings):
    windows: TrafficWindows
    signals: Signals
    limits: HealthLimits
    report: Report


def read_monitor(params: dict[str, Any]) -> tuple[Monitor, Decide]:
    """The blocks ``monitor`` and ``decide``, each validated by itself and against the other. Raises StageError."""
    settings, policy = read_settings(Monitor, "monitor", params), read_settings(Decide, "decide", params)
    if policy.minimum > settings.windows.count:
        raise StageError(
            f"params.yaml: decide.minimum = {policy.minimum}: monitor.windows.count = {settings.windows.count}, so no window "
            "would be large enough for a drift signal to be heard; lower the one or raise the other"
        )
    return settings, policy
