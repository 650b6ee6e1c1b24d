"""The search space: dotted names of ``params.yaml`` with the values that each may take, and points in it.

No parameter is hard-coded: all that is in the space is searched.
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
"""Significant digits of a searched float: more are noise, and ``params.yaml`` is to be readable."""


class Axis(Settings):
    """The values of one parameter: ``low`` to ``high``, integers where both are, or one of ``choices``."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Whether the scale is logarithmic."""
    choices: list[Any] | None = None
    """Any YAML values, including lists."""

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
        """The lower and upper bound; for choices all of them."""
        return self.choices if self.choices is not None else [self.low, self.high]

    @property
    def distribution(self) -> BaseDistribution:
        """The Optuna distribution. Choices are encoded as JSON, since Optuna does not store lists."""
        if self.choices is not None:
            return CategoricalDistribution([json.dumps(choice) for choice in self.choices])
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def read(self, stored: Any) -> Any:
        """The parameter's value from Optuna's stored one."""
        if self.choices is not None:
            return json.loads(stored)
        if isinstance(stored, float):
            return min(max(float(f"{stored:.{DIGITS}g}"), self.ends[0]), self.ends[1])
        return stored

    def write(self, value: Any) -> Any:
        """The value as stored by Optuna."""
        return json.dumps(value) if self.choices is not None else value

    def holds(self, value: Any) -> bool:
        if self.choices is not None:
            return value in self.choices
        is_integer = isinstance(self.distribution, IntDistribution)
        return isinstance(value, int if is_integer else (int, float)) and self.ends[0] <= value <= self.ends[1]


Space = Mapping[str, Axis]


def read_point(space: Space, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a trial by their dotted names."""
    return {name: axis.read(stored[name]) for name, axis in space.items()}


def write_point(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: axis.write(values[name]) for name, axis in space.items()}


def present_point(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The point of the current ``params.yaml``. Raises StageError for an unknown name, or a value outside the space."""
    return {name: _present(name, axis, params) for name, axis in space.items()}


def _present(name: str, axis: Axis, params: Mapping[str, Any]) -> Any:
    value: Any = params
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise StageError(f"params.yaml: tune.space.{name}: there is no such parameter; its name is STAGE.NAME")
        value = value[key]
    if not axis.holds(value):
        raise StageError(f"params.yaml: tune.space.{name}: {value!r}, what {name} is now, is not in it: a search begins there")
    return value


def apply_point(params: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``params`` with the values of a point."""
    result = deepcopy(dict(params))
    for name, value in point.items():
        *blocks, last = name.split(".")
        inner = result
        for block in blocks:
            inner = inner[block]
        inner[last] = value
    return result


def check(space: Space, params: Mapping[str, Any], stages: Mapping[str, type[Settings]]) -> None:
    """Raises StageError where the space has parameters or values with which no trial of these stages can run."""
    present_point(space, params)
    for name, axis in space.items():
        block = name.split(".")[0]
        if block not in stages:
            raise StageError(f"params.yaml: tune.space.{name}: a trial runs {', '.join(stages)}; it would change nothing")
        for value in axis.ends:
            try:
                read_settings(stages[block], block, apply_point(params, {name: value}))
            except StageError as error:
                raise StageError(f"params.yaml: tune.space.{name}: {value!r} cannot be: {error}") from error


def edit_yaml(text: str, point: Mapping[str, Any]) -> str:
    """The YAML ``text`` with the values of a point; all other characters, including comments, stay unchanged.

    Raises StageError for a value on several lines, between which there may be a comment.
    """
    for name, value in point.items():
        node: Any = yaml.compose(text)
        for part in name.split("."):
            node = next(inner for key, inner in node.value if key.value == part)
        if node.start_mark.line != node.end_mark.line:
            raise StageError(f"params.yaml: {name}: write its value in one line, so that another can be put in its place")
        literal = yaml.safe_dump([value], default_flow_style=True, width=10_000).rstrip()[1:-1]
        text = _replace(text, node.start_mark.index, node.end_mark.index, literal)
    return text


def _replace(text: str, start: int, end: int, literal: str) -> str:
    """``text`` with a value replaced; a comment after it keeps its column, where there is room."""
    rest = text[end:].lstrip(" ")
    blanks = len(text) - end - len(rest)
    if rest.startswith("#"):
        blanks = max(1, blanks + (end - start) - len(literal))
    return text[:start] + literal + " " * blanks + rest
