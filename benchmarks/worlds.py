"""Made traffic for the benchmark of drift: windows drawn from a pool of messages that a release has scored.

The reference is drawn afresh for every run, with replacement, from the same pool: both are samples of one world, as
they are in service. A window is drawn without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from service.descriptors import NAMES, describe
from service.release import Release
from tasks.monitor.decide import Decide, Decision, History, JudgedWindow, decide
from tasks.monitor.health import Traffic, health_signals
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import Reference
from tasks.monitor.sample import Integers, Labelled, Sample, merge
from tasks.monitor.signals import drift_signals
from tasks.monitor.watch import Monitor
from tasks.replay.campaigns import CAMPAIGNS, message

T = TypeVar("T")

POOL_SPLITS = ("valid", "test", "golden")
CLIENTS = 20
LABELLED = 0.1
"""Share of messages that a reviewer labels, one window later."""


@dataclass(frozen=True)
class Pool:
    """Scored messages and their true labels."""

    sample: Sample
    labels: Integers

    def take(self, rows: Integers) -> Pool:
        return Pool(self.sample.take(rows), self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


def join(first: Pool, second: Pool) -> Pool:
    return Pool(merge([first.sample, second.sample]), np.concatenate([first.labels, second.labels]))


def score(release: Release, raw: list[str]) -> Sample:
    """What the journal would hold of these raw texts."""
    texts = [release.normalise(text) for text in raw]
    answers, probabilities, features = release.predict(texts)
    rows = [describe(text, release.student.tokenizer.unknown_share(seen)) for text, seen in zip(raw, texts, strict=True)]
    return Sample(
        np.array([[row[name] for name in NAMES] for row in rows]),
        probabilities,
        features.astype(float),
        np.array([release.labels.index(answer.label) for answer in answers]),
    )


def held_out(release: Release, prepared: Path) -> Pool:
    """The messages that no training saw, scored."""
    rows = pd.read_parquet(prepared)
    rows = rows[rows.split.isin(POOL_SPLITS)]
    labels = np.array([release.labels.index(label) for label in rows.label])
    return Pool(score(release, list(rows.raw)), labels)


def campaigns(release: Release, count: int, label: int, rng: np.random.Generator) -> dict[str, Pool]:
    """``count`` messages of each made campaign, scored; ``label`` is what reviewers say of them."""
    return {
        campaign.name: Pool(score(release, [message(campaign, rng) for _ in range(count)]), np.full(count, label))
        for campaign in CAMPAIGNS
    }


class World:
    """One stream of windows, and the monitor that watches it: real signals, real decision, real history."""

    def __init__(self, pool: Pool, positive: int, monitor: Monitor, policy: Decide, rng: np.random.Generator) -> None:
        self.pool, self.positive, self.monitor, self.policy, self.rng = pool, positive, monitor, policy, rng
        self.drawn = pool.take(rng.integers(0, len(pool), len(pool)))
        self.prepare()
        self.past: list[JudgedWindow] = []
        self.samples: list[Sample] = []
        self.labelled: list[Labelled] = []
        self.traffic: list[Traffic] = []
        self.late = Labelled(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def prepare(self) -> None:
        """What a check begins with."""
        self.reference = Reference(self.drawn.sample, self.drawn.labels, NAMES, self.positive)

    def draw(self, count: int) -> Pool:
        """Calm messages."""
        return self.pool.take(self.rng.choice(len(self.pool), count, replace=False))

    def show(self, window: Pool, traffic: Traffic | None = None) -> Decision:
        """Let the monitor judge one more window."""
        number = len(self.past) + 1
        self.samples.append(window.sample)
        self.labelled.append(self.late)
        self.traffic.append(traffic or calm_traffic(len(window), self.rng))
        chosen = self.rng.random(len(window)) < LABELLED
        self.late = Labelled(window.labels[chosen], window.sample.answered[chosen])
        merged = slice(-max(self.monitor.signals.scales), None)
        signals = (
            *drift_signals(self.reference, self._trusted(self.samples)[merged], self.monitor.signals),
            *quality_signals(self.reference, self._trusted(self.labelled)[merged], self.monitor.signals),
            *health_signals(self.reference, self.traffic[-1], window.sample, self.traffic[:-1][merged], self.monitor.limits),
        )
        seen = JudgedWindow(number, f"window {number}", "release", len(window), signals)
        decision = decide(seen, History(tuple(self.past[-self.policy.memory :]), (), self.policy.floor, None), self.policy)
        self.past.append(replace(seen, decision=decision))
        return decision

    def _trusted(self, items: list[T]) -> list[T]:
        kept = [item for item, seen in zip(items, self.past, strict=False) if seen.decision and seen.decision.action != "block"]
        return [*kept, items[-1]]


def calm_traffic(count: int, rng: np.random.Generator) -> Traffic:
    """A healthy service, and clients of which some send more than others."""
    shares = 1 / np.arange(1, CLIENTS + 1)
    clients = np.sort(rng.multinomial(count, shares / shares.sum()))[::-1]
    return Traffic(
        millis=rng.lognormal(0, 0.4, count), clients=tuple(int(c) for c in clients if c), sampled=count,
        copies=0, truncated=0, requests=count, errors=0, empty=0, records=count, lost=0, memory={1: (1e8, 1e8)},
    )  # fmt: skip
