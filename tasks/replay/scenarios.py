"""Test scenarios of the replay: changes injected into stationary traffic, some of which must be detected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.replay.campaigns import CAMPAIGNS, message


@dataclass(frozen=True)
class Scenario:
    """Texts in sending order; ``start`` is the index of the first changed one."""

    name: str
    texts: list[str]
    start: int
    must_be_seen: bool


def calm(pool: pd.DataFrame, messages: int, window: int, rng: np.random.Generator) -> list[int]:
    """Row numbers sampled from ``pool``, without repetition within a window."""
    rows: list[int] = []
    while len(rows) < messages:
        rows += rng.choice(len(pool), min(window, len(pool)), replace=False).tolist()
    return rows[:messages]


def scenarios(
    pool: pd.DataFrame, positive: str, messages: int, window: int, share: float, points: float, seed: int
) -> list[Scenario]:
    """Stationary traffic, the same reordered, a campaign, a prior shift up and down; each after one stationary window.

    ``pool``: held-out messages (raw, label) from the training distribution of the release.
    """
    texts = list(pool.raw)
    result: list[Scenario] = []
    builders: dict[str, tuple[Callable[[np.random.Generator], list[str]], bool]] = {
        "nothing changed": (lambda rng: _texts(texts, calm(pool, messages, window, rng)), False),
        "the same mail in another order": (lambda rng: _texts(texts, _by_length(texts, messages, window, rng)), False),
        f"{share:.0%} of an unseen campaign": (lambda rng: _campaign(texts, pool, messages, window, share, rng), True),
        f"{points:.0%} more {positive}": (lambda rng: _prior(pool, positive, messages, window, points, rng), True),
        f"{points:.0%} less {positive}": (lambda rng: _prior(pool, positive, messages, window, -points, rng), True),
    }
    for number, (name, (build, must_be_seen)) in enumerate(builders.items()):
        result.append(Scenario(name, build(np.random.default_rng(seed + number)), window, must_be_seen))
    return result


def _texts(texts: Sequence[str], rows: Sequence[int]) -> list[str]:
    return [texts[row] for row in rows]


def _by_length(texts: Sequence[str], messages: int, window: int, rng: np.random.Generator) -> list[int]:
    """Each window's messages sorted by length: the same mail, in bursts of similar messages."""
    rows = calm(pd.DataFrame(index=range(len(texts))), messages, window, rng)
    ordered = []
    for start in range(0, messages, window):
        ordered += sorted(rows[start : start + window], key=lambda row: len(texts[row]))
    return ordered


def _campaign(
    texts: Sequence[str], pool: pd.DataFrame, messages: int, window: int, share: float, rng: np.random.Generator
) -> list[str]:
    base = _texts(texts, calm(pool, messages, window, rng))
    return [
        message(CAMPAIGNS[0], rng) if number >= window and rng.random() < share else text for number, text in enumerate(base)
    ]


def _prior(pool: pd.DataFrame, positive: str, messages: int, window: int, points: float, rng: np.random.Generator) -> list[str]:
    """From the second window on, the positive label's share is higher (or lower) by ``points``."""
    hits = [number for number, label in enumerate(pool.label) if label == positive]
    others = [number for number, label in enumerate(pool.label) if label != positive]
    share = min(1.0, max(0.0, len(hits) / len(pool) + points))
    rows = calm(pool, window, window, rng)
    while len(rows) < messages:
        positives = sum(rng.random() < share for _ in range(window))
        batch = [
            *rng.choice(hits, min(positives, len(hits)), replace=False),
            *rng.choice(others, min(window - positives, len(others)), replace=False),
        ]
        rows += rng.permutation(batch).tolist()
    return _texts(list(pool.raw), rows[:messages])
