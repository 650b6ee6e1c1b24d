"""Metrics of the service: for Prometheus since its start, for the journal's status records since the last one.

prometheus_client sums over the workers through files in ``PROMETHEUS_MULTIPROC_DIR``. BentoML sets it to a folder on disk;
we replace that by one in memory. A label value is a route, a status, a release or a label of the model, and never anything
that a client sent.
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

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
METERS_FOLDER = "RESTILL_METERS"
"""Passes the folder that the server made to the workers. Internal: users do not set it."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (``make_folder`` makes a private folder in it)

# BentoML's folder is not configurable, so a worker switches to ours before the first metric below opens its file. Not if
# ours is gone (systemd may remove a user's files there at logout): a worker that starts later must still start.
if MULTIPROC_DIR in os.environ and Path(os.environ.get(METERS_FOLDER, "/nowhere")).is_dir():
    os.environ[MULTIPROC_DIR] = os.environ[METERS_FOLDER]

REQUESTS = prometheus.Counter("restill_requests", "Requests, by route and status.", ["route", "status"])
SECONDS = prometheus.Histogram(
    "restill_request_seconds", "Seconds from a request's headers to its answer, by route.", ["route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)  # fmt: skip
ANSWERS = prometheus.Counter("restill_answers", "Inputs answered, by release and label.", ["release", "label"])
LOST = prometheus.Counter("restill_journal_lost", "Journal records that could not be written.")
FEEDBACK = prometheus.Counter("restill_feedback", "Feedback, by what became of it.", ["outcome"])
SWAPS = prometheus.Counter("restill_swaps", "Times that a worker put a release into service.")
REFUSED = prometheus.Counter("restill_releases_refused", "Times that a worker refused a release.")
SERVING = prometheus.Gauge("restill_serving", "Workers that serve this release.", ["release"], multiprocess_mode="livesum")
REFUSING = prometheus.Gauge("restill_refusing", "Workers that refuse the release the store names.", multiprocess_mode="livesum")


class Meters:
    """The counters of one worker. Thread-safe."""

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
        """The status record: counts since the previous one."""
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
    """Resident memory of this process; the peak where the system does not report the current value."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_folder() -> dict[str, str]:
    """Make a folder in memory for the workers' metrics, removed at exit. Empty if the system has no such place.

    The files are memory-mapped: if a full disk cannot hold a page, the system kills the worker that writes it (SIGBUS).
    """
    try:
        folder = tempfile.mkdtemp(prefix="restill-", dir=SHARED_MEMORY)
    except OSError as error:
        log.warning("the counts lie on the disk, and a full one can kill workers: %s: %s", SHARED_MEMORY, error.strerror)
        return {}
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {METERS_FOLDER: folder}


def remove_dead_workers() -> None:
    """Remove killed workers from the gauges that sum over live workers."""
    folder = os.environ.get(MULTIPROC_DIR)
    if folder is None:
        return
    for path in Path(folder).glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            multiprocess.mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """The metrics of all workers in Prometheus' text format."""
    if MULTIPROC_DIR not in os.environ:
        return prometheus.generate_latest()
    registry = prometheus.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus.generate_latest(registry)
