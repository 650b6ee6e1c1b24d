"""Synthetic traffic for the benchmark of drift: windows sampled from a pool of scored messages.

The reference of every run is a bootstrap sample of the same pool: reference and windows are samples of one distribution, as
in service. A window is sampled without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from service.kinds.text_classification.descriptors import NAMES
from service.release import Release
from tasks.kinds.text_classification.replay.campaigns import CAMPAIGNS, message
from tasks.monitor.decide import Decide, Decision, History, JudgedWindow, decide
from tasks.monitor.health import Traffic, health_signals
from tasks.monitor.quality import quality_signals
from tasks.monitor.reference import Reference
from tasks.monitor.sample import Integers, Labelled, Sample, merge
from tasks.monitor.signals import drift_signals
from tasks.monitor.watch import Monitor

T = TypeVar("T")

POOL_SPLITS = ("valid", "test", "golden")
CLIENTS = 20
LABELLED = 0.1
"""Share of messages labelled by a reviewer, one window later."""


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
    """The sample that the journal would hold for these raw texts."""
    texts = [release.preprocess(text) for text in raw]
    answers, probabilities, features = release.predict(texts)
    rows = [release.serving.describe(text, given, release.model) for text, given in zip(raw, texts, strict=True)]
    return Sample(
        np.array([[row[name] for name in NAMES] for row in rows]),
        probabilities,
        features.astype(float),
        np.array([release.labels.index(answer.label) for answer in answers]),
    )


def held_out(release: Release, prepared: Path) -> Pool:
    """The scored messages of the held-out splits."""
    rows = pd.read_parquet(prepared)
    rows = rows[rows.split.isin(POOL_SPLITS)]
    labels = np.array([release.labels.index(label) for label in rows.label])
    return Pool(score(release, list(rows.raw)), labels)


def campaigns(release: Release, count: int, label: int, rng: np.random.Generator) -> dict[str, Pool]:
    """``count`` scored messages of each synthetic campaign; ``label``: their true label."""
    return {
        campaign.name: Pool(score(release, [message(campaign, rng) for _ in range(count)]), np.full(count, label))
        for campaign in CAMPAIGNS
    }


class World:
    """A stream of windows with its monitor: real signals, decision and history."""

    def __init__(self, pool: Pool, positive: int, monitor: Monitor, policy: Decide, rng: np.random.Generator) -> None:
        self.pool, self.positive, self.monitor, self.policy, self.rng = pool, positive, monitor, policy, rng
        self.reference_pool = pool.take(rng.integers(0, len(pool), len(pool)))
        self.prepare()
        self.past: list[JudgedWindow] = []
        self.samples: list[Sample] = []
        self.labelled: list[Labelled] = []
        self.traffic: list[Traffic] = []
        self.pending_labels = Labelled(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def prepare(self) -> None:
        """Build the reference."""
        self.reference = Reference(self.reference_pool.sample, self.reference_pool.labels, NAMES, self.positive)

    def draw(self, count: int) -> Pool:
        """Sample ``count`` messages without drift."""
        return self.pool.take(self.rng.choice(len(self.pool), count, replace=False))

    def judge(self, window: Pool, traffic: Traffic | None = None) -> Decision:
        """The monitor's decision about the next window."""
        number = len(self.past) + 1
        self.samples.append(window.sample)
        self.labelled.append(self.pending_labels)
        self.traffic.append(traffic or calm_traffic(len(window), self.rng))
        is_labelled = self.rng.random(len(window)) < LABELLED
        self.pending_labels = Labelled(window.labels[is_labelled], window.sample.answered[is_labelled])
        newest = slice(-max(self.monitor.signals.scales), None)
        signals = (
            *drift_signals(self.reference, self._trusted(self.samples)[newest], self.monitor.signals),
            *quality_signals(self.reference, self._trusted(self.labelled)[newest], self.monitor.signals),
            *health_signals(self.reference, self.traffic[-1], window.sample, self.traffic[:-1][newest], self.monitor.limits),
        )
        measured = JudgedWindow(number, f"window {number}", "release", len(window), signals)
        decision = decide(measured, History(tuple(self.past[-self.policy.memory :]), (), self.policy.floor, None), self.policy)
        self.past.append(replace(measured, decision=decision))
        return decision

    def _trusted(self, items: list[T]) -> list[T]:
        judged = zip(items, self.past, strict=False)
        trusted = [item for item, window in judged if window.decision and window.decision.action != "block"]
        return [*trusted, items[-1]]


def calm_traffic(count: int, rng: np.random.Generator) -> Traffic:
    """Traffic of a healthy service, with clients of unequal volume."""
    shares = 1 / np.arange(1, CLIENTS + 1)
    clients = np.sort(rng.multinomial(count, shares / shares.sum()))[::-1]
    return Traffic(
        millis=rng.lognormal(0, 0.4, count), clients=tuple(int(c) for c in clients if c), sampled=count,
        copies=0, truncated=0, requests=count, errors=0, empty=0, records=count, lost=0, memory={1: (1e8, 1e8)},
    )  # fmt: skip
