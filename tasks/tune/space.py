"""The space of a search: dotted names of ``params.yaml``, and the values that each may take.

Nothing here knows a parameter by its name: what is in the space is searched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import model_validator

from tasks.stage import Settings, StageError, read_settings

DIGITS = 4
"""Significant digits of a searched fraction: more say nothing, and a person is to read them in ``params.yaml``."""


class Axis(Settings):
    """The values of one parameter: from ``low`` to ``high``, whole numbers where both are, or one of ``choices``."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Small steps where the values are small, large ones where they are large."""
    choices: list[Any] | None = None
    """Whatever YAML can hold, lists too."""

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Axis:
        if self.choices is not None:
            if not self.choices or self.log or (self.low, self.high) != (None, None):
                raise ValueError("choices are a list of one or more, and stand alone")
        elif self.low is None or self.high is None:
            raise ValueError("either low and high, or choices")
        elif self.low > self.high:
            raise ValueError("low is above high")
        elif self.log and self.low <= 0:
            raise ValueError("log wants a low above 0")
        return self

    @property
    def ends(self) -> list[Any]:
        """The values between which all others lie; of choices all."""
        return self.choices if self.choices is not None else [self.low, self.high]

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna, which stores choices as JSON: of its own it keeps no lists."""
        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def read(self, stored: Any) -> Any:
        """The parameter's value, of what Optuna stored."""
        if self.choices is not None:
            return json.loads(stored)
        if isinstance(stored, float):
            return min(max(float(f"{stored:.{DIGITS}g}"), self.ends[0]), self.ends[1])
        return stored

    def write(self, value: Any) -> Any:
        """What Optuna is to store for this value."""
        return json.dumps(value) if self.choices is not None else value

    def holds(self, value: Any) -> bool:
        if self.choices is not None:
            return value in self.choices
        whole = isinstance(self.distribution, IntDistribution)
        return isinstance(value, int if whole else (int, float)) and self.ends[0] <= value <= self.ends[1]


Space = Mapping[str, Axis]


def read_point(space: Space, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial by their dotted names."""
    return {name: axis.read(stored[name]) for name, axis in space.items()}


def write_point(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: axis.write(values[name]) for name, axis in space.items()}


def present_point(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Where ``params.yaml`` stands in the space. Raises StageError for a name that is not there, or a value outside."""
    return {name: _present(name, axis, params) for name, axis in space.items()}


def _present(name: str, axis: Axis, params: Mapping[str, Any]) -> Any:
    value: Any = params
    for word in name.split("."):
        if not isinstance(value, Mapping) or word not in value:
            raise StageError(f"params.yaml: tune.space.{name}: there is no such parameter; its name is STAGE.NAME")
        value = value[word]
    if not axis.holds(value):
        raise StageError(f"params.yaml: tune.space.{name}: {value!r}, what {name} is now, is not in it: a search begins there")
    return value


def changed(params: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` with the values of a point; what was given stays as it is."""
    result = deepcopy(dict(params))
    for name, value in point.items():
        *blocks, last = name.split(".")
        inner = result
        for block in blocks:
            inner = inner[block]
        inner[last] = value
    return result


def check(space: Space, params: Mapping[str, Any], stages: Mapping[str, type[Settings]]) -> None:
    """Raises StageError that names what in the space no trial of these stages could be run with."""
    present_point(space, params)
    for name, axis in space.items():
        block = name.split(".")[0]
        if block not in stages:
            raise StageError(f"params.yaml: tune.space.{name}: a trial runs {', '.join(stages)}; it would change nothing")
        for value in axis.ends:
            try:
                read_settings(stages[block], block, changed(params, {name: value}))
            except StageError as error:
                raise StageError(f"params.yaml: tune.space.{name}: {value!r} cannot be: {error}") from error


def written(text: str, point: Mapping[str, Any]) -> str:
    """The YAML ``text`` with the values of a point: every other character, comments too, stays where it is.

    Raises StageError where a value stands on several lines, between which a comment may be.
    """
    for name, value in point.items():
        node: Any = yaml.compose(text)
        for word in name.split("."):
            node = next(inner for key, inner in node.value if key.value == word)
        if node.start_mark.line != node.end_mark.line:
            raise StageError(f"params.yaml: {name}: write its value in one line, so that another can be put in its place")
        shown = yaml.safe_dump([value], default_flow_style=True, width=10_000).rstrip()[1:-1]
        text = _replaced(text, node.start_mark.index, node.end_mark.index, shown)
    return text


def _replaced(text: str, start: int, end: int, shown: str) -> str:
    """A comment behind the value stays in its column, where there is room."""
    rest = text[end:].lstrip(" ")
    blanks = len(text) - end - len(rest)
    if rest.startswith("#"):
        blanks = max(1, blanks + (end - start) - len(shown))
    return text[:start] + shown + " " * blanks + rest
