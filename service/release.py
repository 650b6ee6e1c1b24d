"""A release: an immutable folder that holds all an answer needs, and the proof that it is whole.

``manifest.json`` lists the SHA-256 of every other file, and the release's id is the hash of that list. A release
is served only after every file matched and the probe texts got, on this very host, the scores they were packed with.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.decision import decide, softmax
from service.scorer import load_student
from service.text import Normaliser

MANIFEST = "manifest.json"


class ReleaseError(Exception):
    """A release that must not be served; the message says which file or figure is wrong."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one text."""

    label: str
    score: float
    """Calibrated probability: of the positive label where the release names one, else of ``label``."""
    release: str


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` but the manifest, by relative name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def release_id(files: dict[str, str]) -> str:
    """Twelve hexadecimal digits that stand for these files and no others."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


def verify(folder: Path) -> str:
    """The id of the release in ``folder``. Raises ReleaseError where a file is missing, foreign or changed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted, identity = manifest["files"], manifest["id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{folder / MANIFEST}: cannot be read: {error}") from error
    found = hash_files(folder)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            state = "is missing" if name not in found else "is not listed" if name not in wanted else "was changed"
            raise ReleaseError(f"{folder}: {name} {state} (SHA-256 of the manifest)")
    if release_id(wanted) != identity:
        raise ReleaseError(f"{folder}: the id {identity} does not belong to these files")
    return str(identity)


class Release:
    """A verified, warm release. Raises ReleaseError where it is not whole or answers otherwise than it did."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.id = verify(folder)
        self.card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.limits: dict[str, int] = settings["limits"]
        self._positive = self.labels.index(settings["positive"]) if settings["positive"] is not None else None
        self._threshold = float(settings["threshold"])
        self.temperature = float(settings["temperature"])
        # What a recalibration adds to the log-probability of each label, for another mix of labels.
        self.shift = np.array(settings.get("shift", [0.0] * len(self.labels)), dtype=np.float64)
        self._normaliser = Normaliser.from_settings(settings["normaliser"])
        self.student = load_student(folder / "model", threads)
        self._probes: dict[str, Any] = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
        self._check_probes(self._probes)

    def normalise(self, text: str) -> str:
        """The text that the model sees of a raw text; empty where there is nothing to read."""
        return self._normaliser(text)

    def probabilities(self, normalised: Sequence[str]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities ``float64[texts, labels]`` of normalised texts."""
        return softmax(self.scaled(self.student.logits(normalised)))

    def scaled(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Log-probabilities ``float64[n, labels]``, each row but for a constant, of the model's logits."""
        return logits.astype(np.float64) / self.temperature + self.shift

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a raw text, in the order given."""
        return self.answer_normalised([self._normaliser(text) for text in texts])

    def answer_normalised(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a normalised text, in the order given."""
        return self.judge(texts)[0] if texts else []

    def judge(self, texts: Sequence[str]) -> tuple[list[Answer], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Answers to at least one normalised text, with all that led to them.

        Returns the answers, the calibrated probabilities ``float64[texts, labels]`` and the student's pooled features
        ``float32[texts, dimensions]`` (no dimension where the model does not tell them).
        """
        logits, features = self.student.outputs(texts)
        probabilities = softmax(self.scaled(logits))
        answered = decide(probabilities, self._positive, self._threshold)
        scored = answered if self._positive is None else np.full(len(texts), self._positive)
        scores = probabilities[np.arange(len(texts)), scored]
        answers = [Answer(self.labels[label], float(score), self.id) for label, score in zip(answered, scores, strict=True)]
        return answers, probabilities, features

    def is_cut(self, normalised: str) -> bool:
        """Whether a normalised text is as long as any may be: what came after is not read."""
        return len(normalised) >= self._normaliser.characters

    def warm_up(self) -> None:
        """Answer short and long texts, so that no request pays for what is done only once."""
        words = " ".join(probe["text"] for probe in self._probes["probes"]).split(" ")
        for count in (1, 100, len(words)):
            self.answer([" ".join(words[:count])])

    def _check_probes(self, probes: dict[str, Any]) -> None:
        """int8 arithmetic differs between processors: a host that scores otherwise must not answer."""
        found = self.probabilities([self._normaliser(probe["text"]) for probe in probes["probes"]])
        expected = np.array([probe["probabilities"] for probe in probes["probes"]])
        worst = float(np.abs(found - expected).max())
        if not worst <= probes["tolerance"]:
            raise ReleaseError(
                f"release {self.id}: a probe's score differs by {worst:.4f} on this host; {probes['tolerance']} is allowed"
            )


if __name__ == "__main__":
    try:
        print(verify(Path(sys.argv[1])))
    except ReleaseError as error:
        sys.exit(str(error))
