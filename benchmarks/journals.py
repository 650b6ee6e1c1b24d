"""Synthetic journals for the benchmark of the monitor: a release's reference, and stationary traffic that it answered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.check import records
from service.kinds.text_classification.descriptors import NAMES
from service.segments import Segment, encode
from tasks.files import write_json
from tasks.monitor.sample import Integers, Sample
from tasks.stage import Paths

RELEASE, LABELS = "0123456789ab", ["ham", "spam"]
WORKERS = 2
SEGMENT = 10_000
"""Records per segment, as in the service."""
LABELLED = 10
"""One in this many answers gets a label."""


def synthetic_messages(count: int, features: int, rng: np.random.Generator) -> tuple[Sample, Integers]:
    """Messages of a stationary distribution with confident scores and label-dependent features; and their true labels."""
    labels = (rng.random(count) < 0.4).astype(np.int64)
    score = np.where(labels == 1, rng.beta(12, 1, count), rng.beta(1, 12, count))
    descriptors = np.exp(rng.normal(labels[:, None], 1, (count, len(NAMES))))
    probabilities = np.column_stack([1 - score, score])
    return Sample(descriptors, probabilities, rng.normal(labels[:, None], 1, (count, features)), (score >= 0.5) * 1), labels


def install(paths: Paths, reference: int, features: int) -> None:
    """Write the files of a release that the monitor reads into the store."""
    folder = paths.store / "releases" / RELEASE
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", {"labels": LABELS, "positive": LABELS[1], "threshold": 0.5})
    sample, labels = synthetic_messages(reference, features, np.random.default_rng(0))
    np.savez(
        folder / "reference.npz", names=np.array(NAMES), descriptors=sample.descriptors, features=sample.features,
        probabilities=sample.probabilities, label_ids=labels,
    )  # fmt: skip


def write_traffic(paths: Paths, features: int, answers: int, rate: float) -> None:
    """Write the journal of ``answers`` answers, ``rate`` per second, and the feedback on some of them."""
    rng = np.random.default_rng(1)
    for first in range(0, answers, SEGMENT * WORKERS):
        sample, labels = synthetic_messages(min(SEGMENT * WORKERS, answers - first), features, rng)
        answered = records(sample, RELEASE, LABELS, first, 1 / rate)
        for worker in range(WORKERS):
            _write(paths.journal, answered[worker::WORKERS], worker)
        labelled = [(record, LABELS[label]) for record, label in list(zip(answered, labels, strict=True))[::LABELLED]]
        fields = ("label", "score", "release", "time", "hash")
        _write(
            paths.feedback,
            [
                {
                    "kind": "feedback", "time": record["time"], "id": record["id"], "label": label, "reviewer": "made",
                    "subject": "", "text": "", "received": None, "answered": {name: record[name] for name in fields},
                }
                for record, label in labelled
            ],
            WORKERS,
        )  # fmt: skip


def _write(folder: Path, rows: Sequence[dict[str, Any]], worker: int) -> None:
    if rows:
        begin = datetime.fromisoformat(rows[0]["time"])
        segment = Segment(folder, f"{begin:%Y%m%dT%H%M%S%f}Z-{worker:04x}")
        segment.append(b"".join(encode(record | {"n": number}) for number, record in enumerate(rows)))
        segment.close()


@contextmanager
def project(reference: int, features: int, answers: int, rate: float) -> Iterator[Paths]:
    """A temporary project with a release (``reference`` messages) and a journal of ``answers`` answers, ``rate`` per second."""
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        for name in ("store", "journal", "feedback", "monitor", "evidently"):  # wherever RESTILL_HOME is
            setattr(paths, name, Path(folder) / "var" / name)
        install(paths, reference, features)
        write_traffic(paths, features, answers, rate)
        yield paths
