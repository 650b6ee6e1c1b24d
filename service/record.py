"""The journal record of an answer: its scores, the client, and a salted hash of the text instead of the text."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.descriptors import describe
from service.mail import Mail
from service.release import Answer, Release
from service.text import document

log = logging.getLogger("restill.record")

SALT_BYTES = 32


def now() -> str:
    """The current time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def read_salt(path: Path) -> bytes:
    """Read the salt of all hashes, creating it if needed. If it cannot be stored, a salt for this process only."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SALT_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # one of several workers succeeds, and all read its salt
            except FileExistsError:
                log.debug("another worker made the salt")
            finally:
                temporary.unlink()
        salt = path.read_bytes()
        if len(salt) == SALT_BYTES:
            return salt
        log.error("the salt has %d bytes, %d are expected; feedback cannot be matched", len(salt), SALT_BYTES)
    except OSError as error:
        log.error("the salt cannot be kept (%s); feedback cannot be matched after a restart", error.strerror)
    return secrets.token_bytes(SALT_BYTES)


def hash_text(salt: bytes, text: str) -> str:
    """32 hexadecimal digits of HMAC-SHA-256: equal texts have equal hashes; without the salt a hash reveals nothing else."""
    return hmac.digest(salt, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def mail_text(mail: Mail, characters: int) -> str:
    """The raw text of a parsed message as ``/classify_mail`` classifies it, and as feedback must match it."""
    return document(mail.subject, mail.text)[:characters]


@dataclass(frozen=True)
class ScoredText:
    """One classified text with its scores and descriptors."""

    answer: Answer
    probabilities: list[float]
    features: list[float]
    descriptors: dict[str, float]
    latency_us: float
    """From raw text to score; in a batch, the mean per text."""
    truncated: bool
    characters: int
    """The length to which mails are cut before classification. A later release may differ; feedback must use this one."""
    hash: str

    def record(self, route: str, client: str) -> dict[str, Any]:
        """The answer record. The journal adds ``n`` and ``id``."""
        return {
            "kind": "answer",
            "time": now(),
            "release": self.answer.release,
            "label": self.answer.label,
            "score": self.answer.score,
            "probabilities": self.probabilities,
            "latency_us": round(self.latency_us, 1),
            "route": route,
            "client": client,
            "hash": self.hash,
            "descriptors": self.descriptors,
            "features": self.features,
            "truncated": self.truncated,
            "characters": self.characters,
        }


def observe(
    release: Release,
    text: str,
    normalised: str,
    answer: Answer,
    probabilities: npt.NDArray[np.float64],
    features: npt.NDArray[np.float32],
    latency_us: float,
    salt: bytes,
) -> ScoredText:
    """Collect the results of one text; ``probabilities[labels]`` and ``features[dimensions]`` belong to it."""
    unknown_share = release.student.tokenizer.unknown_share(normalised)
    return ScoredText(
        answer,
        probabilities.round(7).tolist(),
        features.astype(np.float64).round(6).tolist(),
        {name: round(value, 6) for name, value in describe(text, unknown_share).items()},
        latency_us,
        release.is_truncated(normalised),
        release.limits["characters"],
        hash_text(salt, text),
    )
