"""Lines of a proposed block of ``params.yaml``, and the bounds in them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

Line = tuple[str, str]
"""A line of YAML, and its comment without the ``#``."""


def upper_bound_line(name: str, values: pd.Series, slack: float, severity: str = "hard") -> Line:
    """A share with an upper bound of 1.5 times its value plus ``slack``."""
    share = float(values.mean())
    return bound_line(name, high=min(1.0, round_up(1.5 * share + slack)), severity=severity), percent(share)


def bound_line(name: str, low: float | None = None, high: float | None = None, severity: str = "hard") -> str:
    return f"{name}: {{min: {_number(low)}, max: {_number(high)}, severity: {severity}}}"


def _number(value: float | None) -> str:
    # Without an exponent: in YAML 1.1, 5e-05 is a string.
    return "null" if value is None else np.format_float_positional(value, trim="-")


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _step(value: float) -> float:
    """One unit in the second significant digit of ``value``."""
    return float(10.0 ** (math.floor(math.log10(value)) - 1))


def round_up(value: float) -> float:
    """``value`` rounded up to two significant digits."""
    return round(math.ceil(value / _step(value)) * _step(value), 12)


def round_down(value: float) -> float:
    """``value`` rounded down to two significant digits."""
    return round(math.floor(value / _step(value)) * _step(value), 12)
