"""Timing of a monitor check of a week's messages: from the journal's files to the decision, and to Evidently's page."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from service.kinds.text_classification.descriptors import NAMES
from service.release import Release
from service.segments import Segment, encode, new_stem
from tasks.monitor import watch
from tasks.monitor.decide import Decide
from tasks.monitor.report import report_window
from tasks.monitor.sample import Sample
from tasks.monitor.state import State
from tasks.stage import Paths

ROUNDS = 3
"""The fastest round counts: other load only slows it down."""


def timing(settings: watch.Monitor, policy: Decide, folder: Path, release: Release, sample: Sample) -> dict[str, float]:
    """Seconds to cut and judge ``sample`` as a journal, without and with the page. ``folder``: the release's."""
    rounds = [_run_once(settings, policy, folder, release, sample) for _ in range(ROUNDS)]
    return {"seconds": min(check for check, _ in rounds), "seconds_with_html": min(check + page for check, page in rounds)}


def _run_once(settings: watch.Monitor, policy: Decide, folder: Path, release: Release, sample: Sample) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder_name:
        root = Path(folder_name)
        paths = Paths(root)
        paths.store, paths.journal, paths.feedback = (root / name for name in ("store", "journal", "feedback"))
        paths.monitor, paths.evidently = root / "monitor", root / "evidently"
        shutil.copytree(folder, paths.store / "releases" / release.id)
        segment = Segment(paths.journal, new_stem())
        segment.append(b"".join(map(encode, records(sample, release.id, release.labels))))
        segment.close()
        begin = time.perf_counter()
        state = State(paths.monitor / "state.db")
        watch.cut(settings, state, paths)
        judgements = [watch.judge(settings, policy, state, paths, window) for window in state.unjudged()]
        check = time.perf_counter() - begin
        page = report_window(settings, state, paths, judgements[-1].window)
        assert page is not None
        return check, time.perf_counter() - begin - check


def records(sample: Sample, release: str, labels: Sequence[str], first: int = 0, apart: float = 1.0) -> list[dict[str, Any]]:
    """``sample`` as journal records, numbered from ``first`` on, ``apart`` seconds apart."""

    def at(n: int) -> str:
        return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n * apart)).isoformat(timespec="microseconds")

    return [
        {
            "kind": "answer", "n": n, "id": str(n), "time": at(n),
            "release": release, "label": labels[answered], "score": float(probabilities[-1]),
            "probabilities": probabilities.tolist(), "latency_us": 200.0, "route": "/classify", "client": f"client {n % 20}",
            "hash": f"{n:032x}", "descriptors": dict(zip(NAMES, descriptors.tolist(), strict=True)),
            "features": features.tolist(), "truncated": False,
        }
        for n, (answered, probabilities, descriptors, features) in enumerate(
            zip(sample.answered, sample.probabilities, sample.descriptors, sample.features, strict=True), start=first
        )
    ]  # fmt: skip
