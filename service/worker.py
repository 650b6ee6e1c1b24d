"""One worker process of the service: its release, journal, feedback and metrics, from start to stop."""

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
from service.meters import ANSWERS, FEEDBACK, REFUSED, REFUSING, SERVING, SWAPS, Meters, remove_dead_workers
from service.record import Scored, now, read_salt
from service.refused import Refused
from service.release import Release
from service.requests import Verdict
from service.swap import HotSwap

log = logging.getLogger("restill.worker")

PARENT_CHECK_SECONDS = 0.5
"""How often a worker checks that the server that started it is still running."""
PACKED = Path(__file__).parents[1] / "release"
"""The release that a Bento includes next to this package."""


class Worker:
    """The state of one process. Raises ReleaseError if the configured release is invalid."""

    def __init__(self, config: Config, meters: Meters) -> None:
        remove_dead_workers()
        self.meters = meters
        self.swap = HotSwap(config.store, PACKED, config.release, self._count_swap)
        self.salt = read_salt(config.salt)
        self.access = Access(config.keys, config.dev, self.salt)
        limits = JournalLimits(config.flush_seconds, config.segment_records, config.keep_days)
        self.journal = Journal(config.journal, limits, meters.lost)
        self.feedback = Feedback(config.feedback, config.journal, self.salt, config.flush_seconds)
        self._stopping = threading.Event()
        self._status_thread = threading.Thread(
            target=self._write_statuses, args=(config.status_seconds,), name="status", daemon=True
        )
        self._status_thread.start()
        threading.Thread(target=self._exit_with_parent, args=(os.getppid(),), name="follow", daemon=True).start()
        self.swap.watch(config.poll_seconds)

    def publish(self, answered: list[Scored], route: str, client: str) -> list[dict[str, Any]]:
        """Journal each answer. Returns the responses: label, score, release, id."""
        responses = []
        for scored in answered:
            answer = scored.answer
            ANSWERS.labels(answer.release, answer.label).inc()
            answer_id = self.journal.append(scored.record(route, client))
            responses.append({"label": answer.label, "score": answer.score, "release": answer.release, "id": answer_id})
        return responses

    def review(self, verdict: Verdict, release: Release, reviewer: str) -> tuple[str, dict[str, Any]]:
        """``Feedback.give``, with metrics. Blocks on the disk. Raises Refused."""
        try:
            outcome, response = self.feedback.give(verdict, release, reviewer)
        except Refused as refused:
            FEEDBACK.labels(f"refused_{refused.status}").inc()
            raise
        FEEDBACK.labels(outcome).inc()
        return outcome, response

    def close(self) -> None:
        """Write a last status record, and flush everything to the disk."""
        self._stopping.set()
        self._status_thread.join(10)
        self.swap.stop()
        self._write_status()
        self.journal.close()
        self.feedback.close()
        if self.swap.current is not None:
            SERVING.labels(self.swap.current.id).set(0)

    def _write_statuses(self, seconds: float) -> None:
        while not self._stopping.wait(seconds):
            self._write_status()

    def _exit_with_parent(self, parent: int) -> None:
        """Exit with the parent process: an orphan would keep the port, and no new server could bind it."""
        while not self._stopping.wait(PARENT_CHECK_SECONDS):
            if os.getppid() != parent:
                log.warning("the server is gone, and this worker goes too")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _write_status(self) -> None:
        current = self.swap.current
        self.journal.append({**self.meters.status(current.id if current else ""), "time": now()})

    def _count_swap(self, event: str, swap: HotSwap) -> None:
        if event != "settled":
            (SWAPS if event == "swapped" else REFUSED).inc()
        state = swap.state()
        if state["previous"]:
            SERVING.labels(state["previous"]).set(0)
        if state["release"]:
            SERVING.labels(state["release"]).set(1)
        REFUSING.set(0 if state["refused"] is None else 1)
