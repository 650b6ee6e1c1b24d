"""What ``decide`` is told and what it says: the policy, the windows and attempts so far, the decision."""

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
    """At most so many restills in so many windows."""


class Rollback(Settings):
    within: int = Field(ge=1)
    """Windows after a promotion in which it may be undone."""
    before: int = Field(ge=1)
    """Windows of the release before it that it is compared with."""
    labels: int = Field(ge=1)
    """Confirmed labels that each side needs."""
    level: float = Field(gt=0, lt=1)
    """Chance that a promotion is undone whose release is no worse than the one before it, over all windows within."""


class Recalibration(Settings):
    floor: int = Field(ge=1)
    """Labelled rows since the last snapshot that a recalibration needs: its threshold and temperature are chosen on them."""


class Decide(Settings):
    false_alarm: float = Field(gt=0, lt=1)
    """Chance that a calm window raises a first alarm, over all its signals and scales together."""
    weights: dict[str, Weight]
    """Signal -> its part of the budget, in parts of a signal that is not named here."""
    confirm: float = Field(gt=0, lt=1)
    """p of a single test that confirms a first alarm."""
    confirm_within: int = Field(ge=1)
    """Windows after a first alarm in which it may be confirmed."""
    minimum: int = Field(ge=1)
    """Messages below which a drift signal is not heard."""
    minimum_labels: int = Field(ge=1)
    """The same for signals of realised quality."""
    cooldown: int = Field(ge=0)
    """Windows without a restill after one has started, and again after it has ended, however it ended; the same for a
    recalibration."""
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
        """How many past windows a decision looks at."""
        return 16 + max(2 * self.confirm_within, self.rollback.within + self.rollback.before)


@dataclass(frozen=True)
class Decision:
    id: str
    """A hash of the window's id: a window asked about twice is one decision."""
    action: Action
    reasons: tuple[str, ...]
    alarms: tuple[str, ...]
    """Keys of the signals that raise a first alarm here."""
    confirmed: tuple[str, ...]
    """Keys of the signals that are confirmed, or are over a fixed limit for the second time."""
    broken: tuple[str, ...]
    """Names of the limits that this window is over."""
    news: bool
    """Whether people should be told: false while an episode of which they know goes on."""


@dataclass(frozen=True)
class JudgedWindow:
    """A window and its signals. ``decision`` is None for the one to decide about."""

    number: int
    id: str
    release: str
    rows: int
    signals: tuple[Signal, ...]
    decision: Decision | None = None
    unknown: str | None = None
    """Why there is no reference to compare the window with; None where there is one."""


@dataclass(frozen=True)
class Attempt:
    """An intent as the policy sees it: windows in place of times."""

    kind: str
    started: int
    finished: int | None
    """Number of the newest window when it ended; None while it is open."""
    outcome: str | None


@dataclass(frozen=True)
class Paired:
    """The release in service and the one before it on the same labelled messages, which came since the promotion."""

    messages: int
    both: int
    """Messages that both have wrong."""
    lost: int
    """Messages that the release in service has wrong, and the one before it right."""
    won: int
    """The other way round."""

    @property
    def wrong(self) -> int:
        return self.both + self.lost

    @property
    def wrong_before(self) -> int:
        return self.both + self.won

    @property
    def p(self) -> float:
        """Chance of so many lost ones, or more, where either is as likely: McNemar's test (1947), exact and one-sided."""
        return float(bdtrc(self.lost - 1, self.lost + self.won, 0.5))


@dataclass(frozen=True)
class History:
    past: tuple[JudgedWindow, ...]
    """Earlier windows, oldest first; at least ``Decide.memory`` of them where there are as many."""
    attempts: tuple[Attempt, ...]
    labelled: int
    """Labelled rows since the last snapshot."""
    previous: str | None
    """The release that a rollback would bring back; None where there is none, where the champion came by a rollback, or
    where the window's release is not the champion any more."""
    serves: bool = True
    """Whether the window's release is still the champion: only that one can be recalibrated."""
    paired: Paired | None = None
    """What ``previous`` says of the labelled messages of ``evidence.suspected``; None where it was not asked."""
    unasked: str = "it was not asked"
    """Why ``paired`` is None, where it should not be."""
    explained: frozenset[str] = frozenset()
    """Confirmed drift that a shift of the label mix explains, as the messages themselves show."""
