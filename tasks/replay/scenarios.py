"""Test scenarios of the replay: changes injected into stationary traffic, some of which must be detected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tasks.kinds import replay_part


@dataclass(frozen=True)
class Scenario:
    """Raw inputs in sending order; ``start`` is the index of the first changed one."""

    name: str
    raws: list[Any]
    start: int
    must_be_seen: bool


def calm(pool: pd.DataFrame, inputs: int, window: int, rng: np.random.Generator) -> list[int]:
    """Row numbers sampled from ``pool``, without repetition within a window."""
    rows: list[int] = []
    while len(rows) < inputs:
        rows += rng.choice(len(pool), min(window, len(pool)), replace=False).tolist()
    return rows[:inputs]


def scenarios(
    kind: str, pool: pd.DataFrame, label: str, inputs: int, window: int, share: float, points: float, seed: int
) -> list[Scenario]:
    """Stationary traffic, the same reordered, each change of the kind, more and less of ``label``.

    Each begins after one stationary window.

    ``pool``: held-out rows (raw, label) from the training distribution of the release.
    """
    raws = list(pool.raw)
    result: list[Scenario] = []
    builders: dict[str, tuple[Callable[[np.random.Generator], list[Any]], bool]] = {
        "nothing changed": (lambda rng: _raws(raws, calm(pool, inputs, window, rng)), False),
        "the same in another order": (lambda rng: _raws(raws, _by_length(raws, inputs, window, rng)), False),
    }
    for name, change in replay_part(kind).CHANGES.items():
        builders[f"{share:.0%} {name}"] = (partial(_changed, change, raws, pool, inputs, window, share), True)
    builders |= {
        f"{points:.0%} more {label}": (lambda rng: _prior(pool, label, inputs, window, points, rng), True),
        f"{points:.0%} less {label}": (lambda rng: _prior(pool, label, inputs, window, -points, rng), True),
    }
    for number, (name, (build, must_be_seen)) in enumerate(builders.items()):
        result.append(Scenario(name, build(np.random.default_rng(seed + number)), window, must_be_seen))
    return result


def _raws(raws: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    return [raws[row] for row in rows]


def _by_length(raws: Sequence[Any], inputs: int, window: int, rng: np.random.Generator) -> list[int]:
    """Each window's inputs sorted by length: the same ones, in bursts of similar inputs."""
    rows = calm(pd.DataFrame(index=range(len(raws))), inputs, window, rng)
    ordered = []
    for start in range(0, inputs, window):
        ordered += sorted(rows[start : start + window], key=lambda row: len(raws[row]))
    return ordered


def _changed(
    change: Callable[[Any, np.random.Generator], Any],
    raws: Sequence[Any],
    pool: pd.DataFrame,
    inputs: int,
    window: int,
    share: float,
    rng: np.random.Generator,
) -> list[Any]:
    """From the second window on, ``share`` of the inputs are changed."""
    base = _raws(raws, calm(pool, inputs, window, rng))
    return [change(raw, rng) if number >= window and rng.random() < share else raw for number, raw in enumerate(base)]


def _prior(pool: pd.DataFrame, label: str, inputs: int, window: int, points: float, rng: np.random.Generator) -> list[Any]:
    """From the second window on, the share of ``label`` is higher (or lower) by ``points``."""
    hits = [number for number, name in enumerate(pool.label) if name == label]
    others = [number for number, name in enumerate(pool.label) if name != label]
    share = min(1.0, max(0.0, len(hits) / len(pool) + points))
    rows = calm(pool, window, window, rng)
    while len(rows) < inputs:
        count = sum(rng.random() < share for _ in range(window))
        batch = [
            *rng.choice(hits, min(count, len(hits)), replace=False),
            *rng.choice(others, min(window - count, len(others)), replace=False),
        ]
        rows += rng.permutation(batch).tolist()
    return _raws(list(pool.raw), rows[:inputs])
