"""Made traffic for the tests of the monitor: a release's reference, and journal records drawn from the same world."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.kinds.text_classification.descriptors import NAMES
from service.segments import Segment, encode
from tasks.monitor.decide import Decide
from tasks.monitor.settings import Monitor
from tasks.stage import Paths, read_params, read_settings

MAIL = Path(__file__).parents[2] / "workloads/mail"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = "0123456789ab"
LABELS = ["ham", "spam"]
THRESHOLD = 0.5


def settings() -> tuple[Monitor, Decide]:
    """Those that are shipped."""
    params = read_params(MAIL)
    return read_settings(Monitor, "monitor", params), read_settings(Decide, "decide", params)


def world(count: int, rng: np.random.Generator, *, spam: float = 0.4, moved: float = 0.0) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays as of ``reference.npz``: sure scores, descriptors that hang on the label; ``moved`` adds to all descriptors."""
    labels = (rng.random(count) < spam).astype(np.int64)
    score = np.where(labels == 1, rng.beta(12, 1, count), rng.beta(1, 12, count))
    descriptors = np.exp(rng.normal(labels[:, None] + moved, 1, (count, len(NAMES))))
    return {
        "names": np.array(NAMES),
        "descriptors": descriptors,
        "probabilities": np.column_stack([1 - score, score]),
        "label_ids": labels,
        "features": rng.normal(labels[:, None], 1, (count, 4)).astype(np.float32),
    }


def install(paths: Paths, release: str = RELEASE, seed: int = 0) -> None:
    """What the monitor reads of a release, in the store."""
    folder = paths.store / "releases" / release
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"labels": LABELS, "positive": "spam", "threshold": THRESHOLD}))
    np.savez(folder / "reference.npz", **world(1300, np.random.default_rng(seed)))  # type: ignore[arg-type]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project in ``folder`` with its own home, whose store holds the release."""
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    paths = Paths(folder)
    install(paths)
    return paths


def answers(arrays: dict[str, np.ndarray[Any, Any]], *, start: int = 0, release: str = RELEASE) -> list[dict[str, Any]]:
    """A record a row, a second apart."""
    found = []
    for row, descriptors in enumerate(arrays["descriptors"].tolist()):
        n, score = start + row, float(arrays["probabilities"][row, 1])
        found.append(
            {
                "kind": "answer", "n": n, "id": f"{n}", "time": at(n), "release": release,
                "label": LABELS[int(score >= THRESHOLD)], "score": score, "probabilities": [1 - score, score],
                "latency_us": 200.0, "route": "/classify", "client": f"client {n % 7}", "hash": f"{n:032x}",
                "descriptors": dict(zip(NAMES, descriptors, strict=True)),
                "features": arrays["features"][row].tolist(), "truncated": False,
            }
        )  # fmt: skip
    return found


def feedback(records: Sequence[dict[str, Any]], labels: Sequence[int], *, start: int = 0) -> list[dict[str, Any]]:
    """A confirmed label for each answer, which came at the same moment."""
    return [
        {
            "kind": "feedback", "n": start + row, "time": record["time"], "id": record["id"], "label": LABELS[label],
            "reviewer": "tests", "subject": "", "text": "", "received": None,
            "answered": {name: record[name] for name in ("label", "score", "release", "time", "hash")},
        }
        for row, (record, label) in enumerate(zip(records, labels, strict=True))
    ]  # fmt: skip


def at(second: float) -> str:
    return (BEGIN + timedelta(seconds=second)).isoformat(timespec="microseconds")


def stem(worker: int) -> str:
    return f"20260101T000000000000Z-{worker:04x}"


def write(folder: Path, records: Sequence[dict[str, Any]], worker: int = 0) -> Path:
    """A closed segment."""
    segment = Segment(folder, stem(worker))
    segment.append(b"".join(encode(record) for record in records))
    segment.close()
    return segment.path.with_suffix(".log")
