"""A reviewer's verdict on an answer: accepted where the message that comes with it is the one that was answered.

The journal holds a salted hash of the text. So nothing needs to be stored before a reviewer speaks, and nobody can
file one message under another's id. A verdict is on the disk before it is confirmed; what it cannot store is told.
"""

from __future__ import annotations

import base64
import binascii
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
from service.mail import Mail, parse_mail
from service.record import hash_text, mail_text, now
from service.refused import Refused
from service.requests import Verdict
from service.segments import CLOSED, decode, find, segments, stem_of

log = logging.getLogger("restill.feedback")

DURABLE = JournalLimits(flush_seconds=1.0, keep_days=None, attempts=1, retry_seconds=0.0)
"""Feedback is training data: kept for ever, and tried once, since its sender is told and can send it again."""

PATIENCE_SECONDS = 5.0
"""An id is looked for so long at most, however long records may wait for their flush: a thread waits with it."""

NOT_READ = "The journal cannot be read, so the answer cannot be found; send it again later."
NOT_STORED = "The feedback could not be stored; send it again later."


def message_of(verdict: Verdict) -> Mail:
    """The message of a verdict; a text is one without a subject. Raises Refused (422): none, or two, or no base64."""
    if (verdict.text is None) == (verdict.raw is None):
        raise Refused(422, 'Send the message that was answered, either as "text" or as "raw" (base64 of a message/rfc822).')
    if verdict.text is not None:
        return Mail("", verdict.text, None, ())
    try:
        raw = base64.b64decode(verdict.raw or "", validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "raw: is not base64.") from None
    return parse_mail(raw)


def classified(verdict: Verdict, message: Mail, characters: int) -> str:
    """What the classifier was given of it. A text is never cut, so none that only begins alike can take its place."""
    return mail_text(message, characters) if verdict.text is None else verdict.text


class Known:
    """Which labels each answer got so far and from whom, from all workers' segments; reads only what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        self._finished: set[str] = set()
        self._last: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)

    def labels(self, identity: str) -> dict[str, str]:
        """The label that each reviewer gave this answer; who corrects himself means what he said last."""
        for path in segments(self._folder):
            if stem_of(path) not in self._finished:
                self._refresh(path)
        return {reviewer: label for reviewer, (_, label) in self._last.get(identity, {}).items()}

    def _refresh(self, path: Path) -> None:
        stem = stem_of(path)
        begin = self._read.get(stem, 0)
        for suffix in (path.suffix, CLOSED):
            try:
                with path.with_suffix(suffix).open("rb") as file:
                    file.seek(begin)
                    data = file.read()
                break
            except FileNotFoundError:  # closed by its writer just now
                continue
        else:
            return
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.split(b"\n")[:-1]:
            record = decode(line)
            if record is not None and record["kind"] == "feedback":
                said = (record["time"], record["label"])
                self._last[record["id"]][record["reviewer"]] = max(said, self._last[record["id"]].get(record["reviewer"], said))
        self._read[stem] = begin + len(whole)
        if suffix == CLOSED:
            self._finished.add(stem)


class Feedback:
    """The feedback of one worker. ``give`` blocks on the disk: call it in a thread."""

    def __init__(self, folder: Path, journal_folder: Path, salt: bytes, flush_seconds: float) -> None:
        self._folder, self._journal_folder, self._salt = folder, journal_folder, salt
        self._patience = min(3 * flush_seconds + 0.1, PATIENCE_SECONDS)
        self._finding = EpisodeLog(log, "answers cannot be found, and feedback on them is refused")
        self._storing = EpisodeLog(log, "feedback cannot be stored, and is refused")
        self._journal = Journal(folder, DURABLE)
        self._known = Known(folder)

    def close(self) -> None:
        self._journal.close()

    def give(self, verdict: Verdict, labels: list[str], characters: int, reviewer: str) -> tuple[str, dict[str, Any]]:
        """What became of a verdict (stored, known, contradicts) and what to tell its sender.

        Raises Refused: 404 for an id that no record has, 409 for another message than the one answered, 422 for a
        label that is none, 503 where it could not be stored. ``characters`` is what mails are cut to now, for the
        records that do not say what they were cut to.
        """
        if verdict.label not in labels:
            raise Refused(422, f"label: is none of {', '.join(labels)}.")
        message = message_of(verdict)
        with _refusing(self._finding, NOT_READ):
            answered = self._find(verdict.id)
        given = classified(verdict, message, answered.get("characters", characters))
        if not hmac.compare_digest(str(answered["hash"]), hash_text(self._salt, given)):
            raise Refused(409, "This is not the message that was answered under this id.")
        record = _record(verdict, message, answered, reviewer)
        with _refusing(self._storing, NOT_STORED), _alone(self._folder):
            return self._store(record)

    def _find(self, identity: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience  # another worker's record may wait for its flush
        while (record := find(self._journal_folder, identity)) is None:
            if time.monotonic() > deadline:
                if not self._journal_folder.is_dir():
                    raise Refused(503, NOT_READ)
                raise Refused(404, "No answer of this id is in the journal.")
            time.sleep(self._patience / 4)
        return record

    def _store(self, record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        identity, label = record["id"], record["label"]
        before = self._known.labels(identity)
        known = before.pop(record["reviewer"], None) == label
        others = sorted(set(before.values()) - {label})
        if not known and not self._journal.store(record):
            raise Refused(503, NOT_STORED)
        outcome = "known" if known else "contradicts" if others else "stored"
        return outcome, {"id": identity, "label": label, "known": known, "contradicts": others}


def _record(verdict: Verdict, message: Mail, answered: dict[str, Any], reviewer: str) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "time": now(),
        "id": verdict.id,
        "label": verdict.label,
        "reviewer": reviewer,
        "subject": message.subject,
        "text": message.text,
        "received": message.received.isoformat() if message.received else answered["time"],
        "answered": {name: answered[name] for name in ("label", "score", "release", "time", "hash")},
    }


@contextmanager
def _refusing(trouble: EpisodeLog, sentence: str) -> Iterator[None]:
    """What the disk refuses is told in the log; the sender gets a 503 with this sentence."""
    try:
        yield
    except OSError as error:
        trouble.tell(reason_of(error))
        raise Refused(503, sentence) from None
    trouble.over()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all workers one at a time looks at what is known and adds to it, so no verdict is stored twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
