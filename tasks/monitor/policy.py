"""Inputs and output of ``decide``: the policy, the history of windows and attempts, the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator
from scipy.special import bdtrc

from tasks.monitor.quality import QUALITY
from tasks.monitor.signals import DRIFT, Signal
from tasks.stage import Settings

Action = Literal["none", "investigate", "recalibrate", "restill", "rollback", "block"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Budget(Settings):
    restills: int = Field(ge=1)
    windows: int = Field(ge=1)
    """At most ``restills`` restills in this many windows."""


class Rollback(Settings):
    within: int = Field(ge=1)
    """Windows after a promotion in which it may be undone."""
    before: int = Field(ge=1)
    """Windows of the previous release that it is compared with."""
    labels: int = Field(ge=1)
    """Confirmed labels that each side needs."""
    level: float = Field(gt=0, lt=1)
    """Probability that a release no worse than the previous one is rolled back, over all windows ``within``."""


class Recalibration(Settings):
    floor: int = Field(ge=1)
    """Labelled rows since the last snapshot that a recalibration needs: its threshold and temperature are chosen on them."""


class Decide(Settings):
    false_alarm: float = Field(gt=0, lt=1)
    """False-alarm budget: probability that a window without drift raises a first alarm, over all signals and scales."""
    weights: dict[str, Weight]
    """Signal -> weight of its share of the budget; a signal not named here has weight 1."""
    confirm: float = Field(gt=0, lt=1)
    """Significance level of the single test that confirms a first alarm."""
    confirm_within: int = Field(ge=1)
    """Windows after a first alarm in which it may be confirmed."""
    minimum: int = Field(ge=1)
    """Answers below which a drift signal is not tested."""
    minimum_labels: int = Field(ge=1)
    """The same for signals of realised quality."""
    cooldown: int = Field(ge=0)
    """Windows without a restill after one has started, and again after it has ended, whatever its outcome; the same for
    recalibrations."""
    floor: int = Field(ge=0)
    """Labelled rows since the last snapshot that a restill needs."""
    budget: Budget
    recalibrate: Recalibration
    rollback: Rollback

    @field_validator("weights")
    @classmethod
    def _of_tested_signals(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in weights:
            if name not in (*DRIFT, *QUALITY):
                raise ValueError(f"{name} is no signal that is tested; there are {', '.join((*DRIFT, *QUALITY))}")
        return weights

    def weight(self, signal: str) -> float:
        return self.weights.get(signal, 1.0)

    @property
    def memory(self) -> int:
        """Number of past windows that a decision uses."""
        return 16 + max(2 * self.confirm_within, self.rollback.within + self.rollback.before)


@dataclass(frozen=True)
class Decision:
    id: str
    """Hash of the window's id: deciding twice about a window gives one decision."""
    action: Action
    reasons: tuple[str, ...]
    alarms: tuple[str, ...]
    """Trends of the signals that raise a first alarm in this window."""
    confirmed: tuple[str, ...]
    """Trends of the confirmed signals, and names of the limits broken for the second time."""
    broken: tuple[str, ...]
    """Names of the limits that this window breaks."""
    news: bool
    """Whether to notify people: false while an episode that was reported continues."""


@dataclass(frozen=True)
class JudgedWindow:
    """A window and its signals. ``decision`` is None for the window to be decided about."""

    number: int
    id: str
    release: str
    rows: int
    signals: tuple[Signal, ...]
    decision: Decision | None = None
    no_reference: str | None = None
    """Why there is no reference to compare the window with; None where there is one."""


@dataclass(frozen=True)
class Attempt:
    """An intent as the policy sees it, with window numbers instead of times."""

    kind: str
    started: int
    finished: int | None
    """Number of the newest window when it ended; None while it is open."""
    outcome: str | None


@dataclass(frozen=True)
class Paired:
    """Errors of the release in service and of the previous one on the same labelled rows since the promotion."""

    rows: int
    both: int
    """Rows that both got wrong."""
    lost: int
    """Rows that only the release in service got wrong."""
    won: int
    """Rows that only the previous release got wrong."""

    @property
    def wrong(self) -> int:
        return self.both + self.lost

    @property
    def wrong_before(self) -> int:
        return self.both + self.won

    @property
    def p(self) -> float:
        """One-sided p-value of McNemar's exact test (1947): P(at least ``lost`` discordant rows) at probability 1/2."""
        return float(bdtrc(self.lost - 1, self.lost + self.won, 0.5))


@dataclass(frozen=True)
class History:
    past: tuple[JudgedWindow, ...]
    """Earlier windows, oldest first; at least ``Decide.memory`` of them, or all."""
    attempts: tuple[Attempt, ...]
    labelled: int
    """Labelled rows since the last snapshot."""
    previous: str | None
    """The release that a rollback would restore; None where there is none, where the champion came by a rollback, or where
    the window's release is no longer the champion."""
    serves: bool = True
    """Whether the window's release is still the champion: only the champion can be recalibrated."""
    paired: Paired | None = None
    """Comparison with ``previous`` on the labelled rows of ``evidence.windows_to_compare``; None where it was not made."""
    not_compared: str = "it was not asked"
    """Why ``paired`` is None."""
    explained: frozenset[str] = frozenset()
    """Confirmed drift that label shift explains, by a test on the inputs."""
