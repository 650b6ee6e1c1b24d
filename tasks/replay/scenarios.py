"""Changes injected into calm traffic: what must be seen, and what must not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.replay.campaigns import CAMPAIGNS, message


@dataclass(frozen=True)
class Scenario:
    """Texts in the order in which they are sent; ``start`` is the place of the first changed one."""

    name: str
    texts: list[str]
    start: int
    must_be_seen: bool


def calm(pool: pd.DataFrame, messages: int, window: int, rng: np.random.Generator) -> list[int]:
    """Rows of ``pool``, drawn so that no window holds one twice."""
    drawn: list[int] = []
    while len(drawn) < messages:
        drawn += rng.choice(len(pool), min(window, len(pool)), replace=False).tolist()
    return drawn[:messages]


def scenarios(
    pool: pd.DataFrame, positive: str, messages: int, window: int, share: float, points: float, seed: int
) -> list[Scenario]:
    """Calm traffic, the same in another order, a campaign, a shift of the prior up and down; each after one calm window.

    ``pool``: held-out messages (raw, label) of the world in which the release learned.
    """
    texts = list(pool.raw)
    made: list[Scenario] = []
    builders: dict[str, tuple[Callable[[np.random.Generator], list[str]], bool]] = {
        "nothing changed": (lambda rng: _texts(texts, calm(pool, messages, window, rng)), False),
        "the same mail in another order": (lambda rng: _texts(texts, _by_length(texts, messages, window, rng)), False),
        f"{share:.0%} of an unseen campaign": (lambda rng: _campaign(texts, pool, messages, window, share, rng), True),
        f"{points:.0%} more {positive}": (lambda rng: _prior(pool, positive, messages, window, points, rng), True),
        f"{points:.0%} less {positive}": (lambda rng: _prior(pool, positive, messages, window, -points, rng), True),
    }
    for number, (name, (build, seen)) in enumerate(builders.items()):
        made.append(Scenario(name, build(np.random.default_rng(seed + number)), window, seen))
    return made


def _texts(texts: Sequence[str], rows: Sequence[int]) -> list[str]:
    return [texts[row] for row in rows]


def _by_length(texts: Sequence[str], messages: int, window: int, rng: np.random.Generator) -> list[int]:
    """Each window's messages sorted by length: the same mail, in bursts of one kind."""
    drawn = calm(pd.DataFrame(index=range(len(texts))), messages, window, rng)
    ordered = []
    for start in range(0, messages, window):
        ordered += sorted(drawn[start : start + window], key=lambda row: len(texts[row]))
    return ordered


def _campaign(
    texts: Sequence[str], pool: pd.DataFrame, messages: int, window: int, share: float, rng: np.random.Generator
) -> list[str]:
    sent = _texts(texts, calm(pool, messages, window, rng))
    return [
        message(CAMPAIGNS[0], rng) if number >= window and rng.random() < share else text for number, text in enumerate(sent)
    ]


def _prior(pool: pd.DataFrame, positive: str, messages: int, window: int, points: float, rng: np.random.Generator) -> list[str]:
    """From the second window on the positive label's share is so much higher (or lower)."""
    hits = [number for number, label in enumerate(pool.label) if label == positive]
    others = [number for number, label in enumerate(pool.label) if label != positive]
    share = min(1.0, max(0.0, len(hits) / len(pool) + points))
    drawn = calm(pool, window, window, rng)
    while len(drawn) < messages:
        wanted = sum(rng.random() < share for _ in range(window))
        part = [
            *rng.choice(hits, min(wanted, len(hits)), replace=False),
            *rng.choice(others, min(window - wanted, len(others)), replace=False),
        ]
        drawn += rng.permutation(part).tolist()
    return _texts(list(pool.raw), drawn[:messages])
