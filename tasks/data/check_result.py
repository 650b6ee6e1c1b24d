"""The result of an expectation about the data: the measured value, the allowed range, and the severity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.stage import Settings

SEVERITIES = ("hard", "soft")


class Bound(Settings):
    """Lowest and highest value allowed (null: any), and what happens outside: hard stops, soft warns."""

    min: float | None
    max: float | None
    severity: Literal["hard", "soft"]


@dataclass(frozen=True)
class CheckResult:
    """The result of one expectation. ``value`` is None where there was nothing to measure; that fails."""

    name: str
    value: float | None
    bound: Bound
    passed: bool

    def __str__(self) -> str:
        return f"{self.name} = {format_value(self.value)}, allowed is {allowed(self.bound.min, self.bound.max)}"


def format_value(value: float | None) -> str:
    return "nothing" if value is None else format(value, ".6g")


def allowed(low: object, high: object) -> str:
    """The range between two bounds, each a number, a text or None, in words."""
    bounds = (("at least", low), ("at most", high))
    parts = [
        f"{words} {format(bound, 'g') if isinstance(bound, int | float) else bound}"
        for words, bound in bounds
        if bound is not None
    ]
    return " and ".join(parts) or "anything"
