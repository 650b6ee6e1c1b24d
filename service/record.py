"""What of an answer is written down: its figures, the caller, and a salted hash that only the text itself can match."""

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
    """The time, ISO 8601, UTC, in microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def read_salt(path: Path) -> bytes:
    """The salt of all hashes, made by whoever asks first. Where it cannot be kept, one that lasts as long as the process."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_bytes(SALT_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(own, path)  # of several workers one wins, and all read the same
            except FileExistsError:
                log.debug("another worker made the salt")
            finally:
                own.unlink()
        salt = path.read_bytes()
        if len(salt) == SALT_BYTES:
            return salt
        log.error("the salt has %d bytes, %d are expected; feedback cannot be matched", len(salt), SALT_BYTES)
    except OSError as error:
        log.error("the salt cannot be kept (%s); feedback cannot be matched after a restart", error.strerror)
    return secrets.token_bytes(SALT_BYTES)


def hash_text(salt: bytes, text: str) -> str:
    """32 hexadecimal digits of HMAC-SHA-256: equal texts can be told, and nothing else without the salt."""
    return hmac.digest(salt, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


def mail_text(mail: Mail, characters: int) -> str:
    """The raw text of a parsed message, as ``/classify_mail`` judges it and feedback on it must match it."""
    return document(mail.subject, mail.text)[:characters]


@dataclass(frozen=True)
class ScoredText:
    """One text and all that was found about it."""

    answer: Answer
    probabilities: list[float]
    features: list[float]
    descriptors: dict[str, float]
    latency_us: float
    """From the raw text to its score; of a batch, its share."""
    truncated: bool
    characters: int
    """What a mail is cut to before it is judged. The next release may have another limit, and feedback must match this one."""
    hash: str

    def record(self, route: str, client: str) -> dict[str, Any]:
        """The answer record. It gets ``n`` and ``id`` from the journal."""
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
    """All that is said of one answered text; ``probabilities[labels]`` and ``features[dimensions]`` are its own."""
    share = release.student.tokenizer.unknown_share(normalised)
    return ScoredText(
        answer,
        probabilities.round(7).tolist(),
        features.astype(np.float64).round(6).tolist(),
        {name: round(value, 6) for name, value in describe(text, share).items()},
        latency_us,
        release.is_cut(normalised),
        release.limits["characters"],
        hash_text(salt, text),
    )
