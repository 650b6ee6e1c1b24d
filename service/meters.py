"""What the service counts: for Prometheus since its start, for the journal's status records since the last one.

prometheus_client adds up the workers through files in ``PROMETHEUS_MULTIPROC_DIR``. BentoML sets it for them, to a
folder on the disk, which we replace by one in memory. A label is a route, a status, a release or a label of the model:
never anything that a caller sent.
"""

from __future__ import annotations

import atexit
import logging
import os
import resource
import shutil
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from prometheus_client import multiprocess

log = logging.getLogger("restill.meters")

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
FOLDER = "RESTILL_METERS"
"""Tells the workers which folder the server made for them. Nobody else sets it."""
MEMORY = Path("/dev/shm")  # noqa: S108  (``make_folder`` makes a folder of its own in it)

# BentoML does not let its folder be chosen, so a worker turns to ours before the first count below opens its file. Not where
# it is gone (systemd may remove what a user has there who logs out): a worker that starts later must start all the same.
if MULTIPROCESS in os.environ and Path(os.environ.get(FOLDER, "/nowhere")).is_dir():
    os.environ[MULTIPROCESS] = os.environ[FOLDER]

REQUESTS = prometheus.Counter("restill_requests", "Requests, by route and status.", ["route", "status"])
SECONDS = prometheus.Histogram(
    "restill_request_seconds", "Seconds from a request's headers to its answer, by route.", ["route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)  # fmt: skip
ANSWERS = prometheus.Counter("restill_answers", "Texts answered, by release and label.", ["release", "label"])
LOST = prometheus.Counter("restill_journal_lost", "Journal records that could not be written.")
FEEDBACK = prometheus.Counter("restill_feedback", "Feedback, by what became of it.", ["outcome"])
SWAPS = prometheus.Counter("restill_swaps", "Times that a worker put a release into service.")
REFUSED = prometheus.Counter("restill_releases_refused", "Times that a worker refused a release.")
SERVING = prometheus.Gauge("restill_serving", "Workers that serve this release.", ["release"], multiprocess_mode="livesum")
REFUSING = prometheus.Gauge("restill_refusing", "Workers that refuse the release the store names.", multiprocess_mode="livesum")


class Meters:
    """One worker's counts. Use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._requests = self._empty = self._errors = self._lost = 0
        self._since = time.monotonic()

    def request(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests += 1
            if 400 <= status < 500:
                self._refused[str(status)] += 1
            elif status >= 500:
                self._errors += 1
        REQUESTS.labels(route, str(status)).inc()
        SECONDS.labels(route).observe(seconds)

    def empty(self) -> None:
        with self._lock:
            self._empty += 1

    def lost(self, records: int) -> None:
        with self._lock:
            self._lost += records
        LOST.inc(records)

    def status(self, release: str) -> dict[str, Any]:
        """The status record of what was counted since the last one."""
        with self._lock:
            now = time.monotonic()
            record = {
                "kind": "status",
                "release": release,
                "seconds": round(now - self._since, 3),
                "requests": self._requests,
                "refused": dict(self._refused),
                "empty": self._empty,
                "errors": self._errors,
                "lost": self._lost,
                "rss_bytes": rss_bytes(),
                "pid": os.getpid(),
            }
            self._refused = Counter()
            self._requests = self._empty = self._errors = self._lost = 0
            self._since = now
        return record


def rss_bytes() -> int:
    """Memory that this process holds now; where the system does not say, the most it ever held."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_folder() -> dict[str, str]:
    """A folder in memory for the workers' counts, gone when this process ends; nothing where there is no such place.

    Their files are mapped: where a full disk cannot hold a page, the system kills the worker that writes it (SIGBUS).
    """
    try:
        folder = tempfile.mkdtemp(prefix="restill-", dir=MEMORY)
    except OSError as error:
        log.warning("the counts lie on the disk, and a full one can kill workers: %s: %s", MEMORY, error.strerror)
        return {}
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {FOLDER: folder}


def forget_the_dead() -> None:
    """A worker that was killed still stands in the gauges of the living: take it out."""
    folder = os.environ.get(MULTIPROCESS)
    if folder is None:
        return
    for path in Path(folder).glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            multiprocess.mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """All counts of all workers, in Prometheus' text format."""
    if MULTIPROCESS not in os.environ:
        return prometheus.generate_latest()
    registry = prometheus.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus.generate_latest(registry)
