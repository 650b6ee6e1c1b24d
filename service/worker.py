"""One worker of the service: the release it serves, its journal, its feedback, its counts, from start to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from service.access import Access
from service.config import Config
from service.feedback import Feedback
from service.journal import Journal, JournalLimits
from service.meters import ANSWERS, FEEDBACK, REFUSED, REFUSING, SERVING, SWAPS, Meters, forget_the_dead
from service.record import ScoredText, now, read_salt
from service.refused import Refused
from service.release import Release
from service.requests import Verdict
from service.swap import Serving

log = logging.getLogger("restill.worker")

FOLLOW_SECONDS = 0.5
"""How often a worker looks whether the server that started it is still there."""
PACKED = Path(__file__).parents[1] / "release"
"""The release that a Bento carries beside this package."""


class Worker:
    """All of one process. Raises ReleaseError where a release is fixed by the configuration and is not whole."""

    def __init__(self, config: Config, meters: Meters) -> None:
        forget_the_dead()
        self.meters = meters
        self.serving = Serving(config.store, PACKED, config.release, self._tell)
        self.salt = read_salt(config.salt)
        self.access = Access(config.keys, config.dev, self.salt)
        limits = JournalLimits(config.flush_seconds, config.segment_records, config.keep_days)
        self.journal = Journal(config.journal, limits, meters.lost)
        self.feedback = Feedback(config.feedback, config.journal, self.salt, config.flush_seconds)
        self._stopping = threading.Event()
        self._pulse = threading.Thread(target=self._beat, args=(config.status_seconds,), name="status", daemon=True)
        self._pulse.start()
        threading.Thread(target=self._follow, args=(os.getppid(),), name="follow", daemon=True).start()
        self.serving.watch(config.poll_seconds)

    def publish(self, judged: list[ScoredText], route: str, client: str) -> list[dict[str, Any]]:
        """Journal each answer, and return what its caller is told: label, score, release, id."""
        told = []
        for entry in judged:
            answer = entry.answer
            ANSWERS.labels(answer.release, answer.label).inc()
            identity = self.journal.append(entry.record(route, client))
            told.append({"label": answer.label, "score": answer.score, "release": answer.release, "id": identity})
        return told

    def review(self, verdict: Verdict, release: Release, reviewer: str) -> tuple[str, dict[str, Any]]:
        """Feedback.give, counted. Blocks on the disk. Raises Refused."""
        try:
            outcome, said = self.feedback.give(verdict, release.labels, release.limits["characters"], reviewer)
        except Refused as refused:
            FEEDBACK.labels(f"refused_{refused.status}").inc()
            raise
        FEEDBACK.labels(outcome).inc()
        return outcome, said

    def close(self) -> None:
        """A last status record, and everything on the disk."""
        self._stopping.set()
        self._pulse.join(10)
        self.serving.stop()
        self._write_status()
        self.journal.close()
        self.feedback.close()
        if self.serving.current is not None:
            SERVING.labels(self.serving.current.id).set(0)

    def _beat(self, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            self._write_status()

    def _follow(self, parent: int) -> None:
        """End with the process that started us: an orphan would hold the port, and no new server could take it."""
        while not self._stopping.wait(FOLLOW_SECONDS):
            if os.getppid() != parent:
                log.warning("the server is gone, and this worker goes too")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _write_status(self) -> None:
        current = self.serving.current
        self.journal.append({**self.meters.status(current.id if current else ""), "time": now()})

    def _tell(self, what: str, serving: Serving) -> None:
        if what != "settled":
            (SWAPS if what == "swapped" else REFUSED).inc()
        state = serving.state()
        if state["previous"]:
            SERVING.labels(state["previous"]).set(0)
        if state["release"]:
            SERVING.labels(state["release"]).set(1)
        REFUSING.set(0 if state["refused"] is None else 1)
