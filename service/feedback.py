"""Reviewers' feedback on answers, accepted only with the input that was answered.

The journal has a salted hash of each input, so inputs need not be stored before feedback arrives, and feedback on one
cannot be filed under the id of another. A verdict is on the disk before it is confirmed; a failure to store it is reported.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.episode_log import EpisodeLog, reason_of
from service.journal import Journal, JournalLimits
from service.kinds import Reviewed
from service.record import now, salted_hash
from service.refused import Refused
from service.release import Release
from service.requests import Verdict
from service.segments import CLOSED, decode, find, segments, stem_of

log = logging.getLogger("restill.feedback")

DURABLE = JournalLimits(flush_seconds=1.0, keep_days=None, attempts=1, retry_seconds=0.0)
"""Feedback is training data: kept for ever. It is tried once, since its sender gets the error and can send it again."""

MAX_WAIT_SECONDS = 5.0
"""Longest search for an id, however long the flush interval is: the search blocks a thread."""

NOT_READ = "The journal cannot be read, so the answer cannot be found; send it again later."
NOT_STORED = "The feedback could not be stored; send it again later."


class FeedbackIndex:
    """The labels of each answer by reviewer, from the segments of all workers; reads incrementally."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}
        self._closed: set[str] = set()
        self._labels: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)

    def labels(self, identity: str) -> dict[str, str]:
        """The label that each reviewer gave this answer; the last one if there are several."""
        for path in segments(self._folder):
            if stem_of(path) not in self._closed:
                self._refresh(path)
        return {reviewer: label for reviewer, (_, label) in self._labels.get(identity, {}).items()}

    def _refresh(self, path: Path) -> None:
        stem = stem_of(path)
        offset = self._offsets.get(stem, 0)
        for suffix in (path.suffix, CLOSED):
            try:
                with path.with_suffix(suffix).open("rb") as file:
                    file.seek(offset)
                    data = file.read()
                break
            except FileNotFoundError:  # its writer closed it in the meantime
                continue
        else:
            return
        complete = data[: data.rfind(b"\n") + 1]
        for line in complete.split(b"\n")[:-1]:
            record = decode(line)
            if record is not None and record["kind"] == "feedback":
                dated_label = (record["time"], record["label"])
                self._labels[record["id"]][record["reviewer"]] = max(
                    dated_label, self._labels[record["id"]].get(record["reviewer"], dated_label)
                )
        self._offsets[stem] = offset + len(complete)
        if suffix == CLOSED:
            self._closed.add(stem)


class Feedback:
    """Accepts feedback in one worker. ``give`` blocks on the disk: call it in a thread."""

    def __init__(self, folder: Path, journal_folder: Path, salt: bytes, flush_seconds: float) -> None:
        self._folder, self._journal_folder, self._salt = folder, journal_folder, salt
        self._max_wait = min(3 * flush_seconds + 0.1, MAX_WAIT_SECONDS)
        self._find_episode = EpisodeLog(log, "answers cannot be found, and feedback on them is refused")
        self._store_episode = EpisodeLog(log, "feedback cannot be stored, and is refused")
        self._journal = Journal(folder, DURABLE)
        self._index = FeedbackIndex(folder)

    def close(self) -> None:
        self._journal.close()

    def give(self, verdict: Verdict, release: Release, reviewer: str) -> tuple[str, dict[str, Any]]:
        """Store a verdict. Returns the outcome (stored, known, contradicts) and the response.

        Raises Refused: 404 for an unknown id, 409 if the input is not the one answered, 422 for an unknown label or where
        the input cannot be read, 503 if it could not be stored.
        """
        if verdict.label not in release.labels:
            raise Refused(422, f"label: is none of {', '.join(release.labels)}.")
        release.serving.review(verdict, {}, release.limits)  # a broken verdict costs no search of the journal
        with _refuse_on_error(self._find_episode, NOT_READ):
            answered = self._find(verdict.id)
        reviewed = release.serving.review(verdict, answered, release.limits)
        if not hmac.compare_digest(str(answered["hash"]), salted_hash(self._salt, release.serving.identity(reviewed.raw))):
            raise Refused(409, "This is not the input that was answered under this id.")
        record = _record(verdict, reviewed, answered, reviewer)
        with _refuse_on_error(self._store_episode, NOT_STORED), _locked(self._folder):
            return self._store(record)

    def _find(self, answer_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._max_wait  # another worker's record may not be flushed yet
        while (record := find(self._journal_folder, answer_id)) is None:
            if time.monotonic() > deadline:
                if not self._journal_folder.is_dir():
                    raise Refused(503, NOT_READ)
                raise Refused(404, "No answer of this id is in the journal.")
            time.sleep(self._max_wait / 4)
        return record

    def _store(self, record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identity, label = record["id"], record["label"]
        labels = self._index.labels(identity)
        is_known = labels.pop(record["reviewer"], None) == label
        others = sorted(set(labels.values()) - {label})
        if not is_known and not self._journal.store(record):
            raise Refused(503, NOT_STORED)
        outcome = "known" if is_known else "contradicts" if others else "stored"
        return outcome, {"id": identity, "label": label, "known": is_known, "contradicts": others}


def _record(verdict: Verdict, reviewed: Reviewed, answered: dict[str, Any], reviewer: str) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "time": now(),
        "id": verdict.id,
        "label": verdict.label,
        "reviewer": reviewer,
        **reviewed.content,
        "received": reviewed.received.isoformat() if reviewed.received else answered["time"],
        "answered": {name: answered[name] for name in ("label", "score", "release", "time", "hash")},
    }


@contextmanager
def _refuse_on_error(episode: EpisodeLog, sentence: str) -> Iterator[None]:
    """Log an OSError and refuse the request with 503 and this sentence."""
    try:
        yield
    except OSError as error:
        episode.report(reason_of(error))
        raise Refused(503, sentence) from None
    episode.resolve()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock across workers between lookup and store, so that no verdict is stored twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
