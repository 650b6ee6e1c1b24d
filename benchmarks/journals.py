"""Made journals for the benchmark of the monitor: a release's reference, and calm traffic that it answered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.check import records
from service.descriptors import NAMES
from service.segments import Segment, encode
from tasks.monitor.sample import Integers, Sample
from tasks.stage import Paths, write_json

RELEASE, LABELS = "0123456789ab", ["ham", "spam"]
WORKERS = 2
SEGMENT = 10_000
"""Records of a segment, as the service closes them."""
LABELLED = 10
"""One of so many answers gets a label."""


def made(count: int, features: int, rng: np.random.Generator) -> tuple[Sample, Integers]:
    """Messages of a calm world, sure scores and figures that hang on the label; and their true labels."""
    labels = (rng.random(count) < 0.4).astype(np.int64)
    score = np.where(labels == 1, rng.beta(12, 1, count), rng.beta(1, 12, count))
    descriptors = np.exp(rng.normal(labels[:, None], 1, (count, len(NAMES))))
    probabilities = np.column_stack([1 - score, score])
    return Sample(descriptors, probabilities, rng.normal(labels[:, None], 1, (count, features)), (score >= 0.5) * 1), labels


def install(paths: Paths, reference: int, features: int) -> None:
    """What the monitor reads of a release, in the store."""
    folder = paths.store / "releases" / RELEASE
    folder.mkdir(parents=True)
    write_json(folder / "settings.json", {"labels": LABELS, "positive": LABELS[1], "threshold": 0.5})
    sample, labels = made(reference, features, np.random.default_rng(0))
    np.savez(
        folder / "reference.npz", names=np.array(NAMES), descriptors=sample.descriptors, features=sample.features,
        probabilities=sample.probabilities, label_ids=labels,
    )  # fmt: skip


def write_traffic(paths: Paths, features: int, answers: int, rate: float) -> None:
    """The journal of so many answers, ``rate`` a second, and the feedback on some of them."""
    rng = np.random.default_rng(1)
    for first in range(0, answers, SEGMENT * WORKERS):
        sample, labels = made(min(SEGMENT * WORKERS, answers - first), features, rng)
        found = records(sample, RELEASE, LABELS, first, 1 / rate)
        for worker in range(WORKERS):
            _write(paths.journal, found[worker::WORKERS], worker)
        said = [(record, LABELS[label]) for record, label in list(zip(found, labels, strict=True))[::LABELLED]]
        answered = ("label", "score", "release", "time", "hash")
        _write(
            paths.feedback,
            [
                {
                    "kind": "feedback", "time": record["time"], "id": record["id"], "label": label, "reviewer": "made",
                    "subject": "", "text": "", "received": None, "answered": {name: record[name] for name in answered},
                }
                for record, label in said
            ],
            WORKERS,
        )  # fmt: skip


def _write(folder: Path, found: Sequence[dict[str, Any]], worker: int) -> None:
    if found:
        begin = datetime.fromisoformat(found[0]["time"])
        segment = Segment(folder, f"{begin:%Y%m%dT%H%M%S%f}Z-{worker:04x}")
        segment.append(b"".join(encode(record | {"n": number}) for number, record in enumerate(found)))
        segment.close()


@contextmanager
def project(reference: int, features: int, answers: int, rate: float) -> Iterator[Paths]:
    """A folder with a release, whose reference has so many messages, and so many answers, ``rate`` a second."""
    with tempfile.TemporaryDirectory() as place:
        paths = Paths(Path(place))
        for name in ("store", "journal", "feedback", "monitor", "evidently"):  # wherever RESTILL_HOME is
            setattr(paths, name, Path(place) / "var" / name)
        install(paths, reference, features)
        write_traffic(paths, features, answers, rate)
        yield paths
