"""The journal record of an answer: its scores, the client, and a salted hash of the input instead of the input."""

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

from service.release import Answer, Release

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


def salted_hash(salt: bytes, identity: bytes) -> str:
    """32 hexadecimal digits of HMAC-SHA-256: equal inputs have equal hashes; without the salt a hash reveals nothing else."""
    return hmac.digest(salt, identity, "sha256").hex()[:32]


@dataclass(frozen=True)
class Scored:
    """One answered input with its scores and descriptors."""

    answer: Answer
    probabilities: list[float]
    features: list[float]
    descriptors: dict[str, float]
    latency_us: float
    """From raw input to score; in a batch, the mean per input."""
    truncated: bool
    hash: str
    recorded: dict[str, Any]
    """What the kind needs to know of the answer when feedback comes."""

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
            **self.recorded,
        }


def observe(
    release: Release,
    raw: Any,
    model_input: Any,
    answer: Answer,
    probabilities: npt.NDArray[np.float64],
    features: npt.NDArray[np.float32],
    latency_us: float,
    salt: bytes,
) -> Scored:
    """Collect the results of one input; ``probabilities[labels]`` and ``features[dimensions]`` belong to it."""
    serving = release.serving
    return Scored(
        answer,
        probabilities.round(7).tolist(),
        features.astype(np.float64).round(6).tolist(),
        {name: round(value, 6) for name, value in serving.describe(raw, model_input, release.model).items()},
        latency_us,
        serving.is_truncated(model_input),
        salted_hash(salt, serving.identity(raw)),
        serving.recorded(release.limits),
    )
