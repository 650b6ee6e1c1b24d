"""Health and trust signals: figures of the service and of the input, with fixed limits from ``params.yaml``.

``health`` signals (latency, errors, memory) call for a person to look; ``trust`` signals (journal loss, a burst of one
client, floods of copies, empty or truncated input) exclude the window from later measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.monitor.reference import Reference
from tasks.monitor.sample import Floats, Sample
from tasks.monitor.signals import Signal
from tasks.monitor.statistics import wilson
from tasks.stage import Settings


class HealthLimits(Settings):
    latency_p50_ms: float = Field(gt=0)
    latency_p99_ms: float = Field(gt=0)
    errors: float = Field(ge=0, le=1)
    """Share of requests that failed with a server error (5xx)."""
    memory_growth: float = Field(gt=0)
    """Relative growth of a worker's resident memory over the merged windows."""
    journal_loss: float = Field(ge=0, le=1)
    """Share of records lost."""
    client_rise: float = Field(gt=0, le=1)
    """How much the busiest client's share may rise above that of the busiest in earlier windows."""
    copies: float = Field(gt=0, le=1)
    """Share of the sample's inputs that occurred earlier in the sample."""
    near_copies: float = Field(gt=0, le=1)
    """Share of the sample's inputs with a near-duplicate in the sample."""
    near_distance: float = Field(gt=0)
    """Distance below which inputs are near-duplicates: root mean square over normal scores of features and descriptors."""
    empty: float = Field(ge=0, le=1)
    """Share of requests in which nothing can be read."""
    truncated: float = Field(ge=0, le=1)
    """Share of inputs that were truncated."""
    minimum: int = Field(ge=1)
    """Requests below which limits on shares are not checked."""


@dataclass(frozen=True)
class Traffic:
    """A window's figures about the service and its clients, not about the inputs."""

    millis: Floats
    """Time of each answer, milliseconds."""
    clients: tuple[int, ...]
    """Answers per client, in descending order, without names."""
    sampled: int
    """Inputs among which copies are counted: a larger sample has a larger share of copies."""
    copies: int
    """Those that occurred earlier in the sample."""
    truncated: int
    requests: int
    """According to the status records; at least the number of answers."""
    errors: int
    empty: int
    records: int
    lost: int
    memory: Mapping[int, tuple[float, float]]
    """Process id -> resident bytes at the first and the last status."""


def traffic_from_records(
    records: Sequence[Mapping[str, Any]], lost: int, sample: Sequence[Mapping[str, Any]] | None = None
) -> Traffic:
    """The traffic of a window's records. ``lost``: record numbers in its ranges without a record; ``sample``: the answers in
    which copies are counted, None for all.

    Records that a worker reports as lost usually have numbers, so both counts cover the same records: the larger one is used.
    """
    answers = [record for record in records if record["kind"] == "answer"]
    statuses = [record for record in records if record["kind"] == "status"]
    memory: dict[int, tuple[float, float]] = {}
    for status in statuses:
        size = float(status["rss_bytes"])
        memory[status["pid"]] = (memory.get(status["pid"], (size, size))[0], size)
    clients = Counter(answer["client"] for answer in answers)
    sample = answers if sample is None else sample
    return Traffic(
        millis=np.array([answer["latency_us"] for answer in answers], dtype=float) / 1000,
        clients=tuple(count for _, count in clients.most_common()),
        sampled=len(sample),
        copies=len(sample) - len({answer["hash"] for answer in sample}),
        truncated=sum(bool(answer["truncated"]) for answer in answers),
        requests=max(len(answers), sum(status["requests"] for status in statuses)),
        errors=sum(status["errors"] for status in statuses),
        empty=sum(status["empty"] for status in statuses),
        records=len(records),
        lost=max(lost, sum(status["lost"] for status in statuses)),
        memory=memory,
    )


def health_signals(
    reference: Reference | None, window: Traffic, sample: Sample | None, earlier: Sequence[Traffic], limits: HealthLimits
) -> list[Signal]:
    """All health and trust signals of ``window``. ``earlier``: the windows before it, oldest first, of any release.

    Without a reference near-duplicates are not measured: their distance is defined on its normal scores.
    """
    answers, minimum = len(window.millis), limits.minimum
    near = near_copies(reference, sample, limits.near_distance) if reference is not None and sample is not None else None
    signals = [
        _quantile("latency_p50", window.millis, 0.5, limits.latency_p50_ms),
        _quantile("latency_p99", window.millis, 0.99, limits.latency_p99_ms),
        _rate("errors", "health", window.errors, window.requests, limits.errors, minimum),
        _memory([*earlier, window], limits.memory_growth),
        _rate("journal_loss", "trust", window.lost, window.lost + window.records, limits.journal_loss, 1),
        _burst(window, earlier, limits),
        _rate("copies", "trust", window.copies, window.sampled, limits.copies, minimum),
        _rate("near_copies", "trust", near, window.sampled, limits.near_copies, minimum),
        _rate("empty", "trust", window.empty, window.empty + answers, limits.empty, minimum),
        _rate("truncated", "trust", window.truncated, answers, limits.truncated, minimum),
    ]
    return [signal for signal in signals if signal is not None]


def _rate(name: str, kind: Any, hits: int | None, n: int, limit: float, minimum: int) -> Signal | None:
    if hits is None or n < minimum:
        return None
    low, high = wilson(hits, n)
    return Signal(name, kind, hits / n, low, high, limit, None, "up", n)


def _quantile(name: str, millis: Floats, share: float, limit: float) -> Signal | None:
    """A quantile and its 95 % interval by order statistics (binomial ranks, normal approximation)."""
    n = len(millis)
    if not n:
        return None
    ordered = np.sort(millis)
    half = 1.96 * np.sqrt(n * share * (1 - share))
    low, high = (ordered[int(np.clip(n * share + side * half, 0, n - 1))] for side in (-1, 1))
    return Signal(name, "health", float(np.quantile(ordered, share)), float(low), float(high), limit, None, "up", n)


def _memory(windows: Sequence[Traffic], limit: float) -> Signal | None:
    """Growth of the process that grew most, among those alive in the last window."""
    initial: dict[int, float] = {}
    for window in windows:
        for process, (begin, _) in window.memory.items():
            initial.setdefault(process, begin)
    growth = [end / initial[process] - 1 for process, (_, end) in windows[-1].memory.items() if initial[process] > 0]
    if not growth:
        return None
    return Signal("memory_growth", "health", max(growth), None, None, limit, None, "up", len(growth), len(windows))


def _burst(window: Traffic, earlier: Sequence[Traffic], limits: HealthLimits) -> Signal | None:
    """Rise of the busiest client's share, compared by rank, not by name: a client that changes its name is no burst."""
    shares = [other.clients[0] / sum(other.clients) for other in earlier if sum(other.clients) >= limits.minimum]
    n = sum(window.clients)
    if n < limits.minimum or not shares:
        return None
    low, high = wilson(window.clients[0], n)
    baseline = float(np.median(shares))
    return Signal(
        "client_burst",
        "trust",
        window.clients[0] / n - baseline,
        low - baseline,
        high - baseline,
        limits.client_rise,
        None,
        "up",
        n,
    )


def near_copies(reference: Reference, sample: Sample, distance: float) -> int:
    """Number of inputs with a nearest neighbour closer than ``distance``."""
    if len(sample) < 2:
        return 0
    scores = reference.rank(sample).scores
    squares = (scores**2).sum(axis=1)
    squared_distances: npt.NDArray[np.float64] = squares[:, None] + squares[None] - 2 * scores @ scores.T
    np.fill_diagonal(squared_distances, np.inf)
    return int((squared_distances.min(axis=1) < distance**2 * scores.shape[1]).sum())
