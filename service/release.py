"""A release: an immutable folder with everything needed to answer, and its verification.

``manifest.json`` lists the SHA-256 of every other file, and the release's id is the hash of that list. A release is served
only after every file matches and the probes get, on this host, the scores that are packed with them.
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

from service.decision import decide, positive_index, softmax
from service.kinds import serving_class

MANIFEST = "manifest.json"


class ReleaseError(Exception):
    """A release that must not be served; the message names the wrong file or value."""


@dataclass(frozen=True)
class Answer:
    """The classification of one input."""

    label: str
    score: float
    """Calibrated probability: of the positive label if the release has one, else of ``label``."""
    release: str


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` except the manifest, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def release_id(files: dict[str, str]) -> str:
    """The id of a release with these files: twelve hexadecimal digits of the hash of the list."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


def verify(folder: Path) -> str:
    """The id of the release in ``folder``. Raises ReleaseError if a file is missing, not listed or changed."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected, manifest_id = manifest["files"], manifest["id"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{folder / MANIFEST}: cannot be read: {error}") from error
    actual = hash_files(folder)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            state = "is missing" if name not in actual else "is not listed" if name not in expected else "was changed"
            raise ReleaseError(f"{folder}: {name} {state} (SHA-256 of the manifest)")
    if release_id(expected) != manifest_id:
        raise ReleaseError(f"{folder}: the id {manifest_id} does not belong to these files")
    return str(manifest_id)


class Release:
    """A verified, loaded release. Raises ReleaseError if a file is wrong or a probe's score differs."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.id = verify(folder)
        self.card: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.labels: list[str] = settings["labels"]
        self.limits: dict[str, int] = settings["limits"]
        self._positive = positive_index(settings)
        self._threshold = float(settings["threshold"])
        self.temperature = float(settings["temperature"])
        # Recalibration adds this to each label's log-probability, to correct for label shift.
        self.shift = np.array(settings.get("shift", [0.0] * len(self.labels)), dtype=np.float64)
        try:
            self.kind: str = settings["kind"]
            self.serving = serving_class(self.kind)(settings)
            self.model = self.serving.load(folder / "model", threads)
        except ValueError as error:
            raise ReleaseError(f"release {self.id}: {error}") from error
        self._probes: dict[str, Any] = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
        self._check_probes(self._probes)

    def preprocess(self, raw: Any) -> Any:
        """The model's input for a raw one; empty if nothing in it is readable."""
        return self.serving.preprocess(raw)

    def probabilities(self, inputs: Sequence[Any]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities ``float64[n, labels]`` of model inputs."""
        return softmax(self.scaled(self.model.logits(inputs)))

    def scaled(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Log-probabilities ``float64[n, labels]`` of the model's logits, each row up to an additive constant."""
        return logits.astype(np.float64) / self.temperature + self.shift

    def answer(self, raws: Sequence[Any]) -> list[Answer]:
        """One answer per raw input that can be read, in order."""
        return self.answer_preprocessed([self.serving.preprocess(raw) for raw in raws])

    def answer_preprocessed(self, inputs: Sequence[Any]) -> list[Answer]:
        """One answer per model input, in order."""
        return self.predict(inputs)[0] if inputs else []

    def predict(self, inputs: Sequence[Any]) -> tuple[list[Answer], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Classify at least one model input.

        Returns the answers, the calibrated probabilities ``float64[n, labels]`` and the model's pooled features
        ``float32[n, dimensions]`` (0 dimensions if the model does not output them).
        """
        logits, features = self.model.outputs(inputs)
        probabilities = softmax(self.scaled(logits))
        predicted = decide(probabilities, self._positive, self._threshold)
        score_columns = predicted if self._positive is None else np.full(len(inputs), self._positive)
        scores = probabilities[np.arange(len(inputs)), score_columns]
        answers = [Answer(self.labels[label], float(score), self.id) for label, score in zip(predicted, scores, strict=True)]
        return answers, probabilities, features

    def probe_inputs(self) -> list[Any]:
        """The raw inputs of the probes."""
        return [self.serving.from_json(probe["input"]) for probe in self._probes["probes"]]

    def warm_up(self) -> None:
        """Answer once, so that no request pays for one-time initialisation."""
        for raw in self.serving.warm_up(self.probe_inputs()):
            self.answer([raw])

    def _check_probes(self, probes: dict[str, Any]) -> None:
        """int8 arithmetic differs between processors: a host with other scores must not serve the release."""
        actual = self.probabilities([self.preprocess(raw) for raw in self.probe_inputs()])
        expected = np.array([probe["probabilities"] for probe in probes["probes"]])
        difference = float(np.abs(actual - expected).max())
        if not difference <= probes["tolerance"]:
            raise ReleaseError(
                f"release {self.id}: a probe's score differs by {difference:.4f} on this host; {probes['tolerance']} is allowed"
            )


if __name__ == "__main__":
    try:
        print(verify(Path(sys.argv[1])))
    except ReleaseError as error:
        sys.exit(str(error))
