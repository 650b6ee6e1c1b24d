"""Inference of the student: from normalised texts to logits, with ONNX Runtime and NumPy only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.kinds.text_classification.tokenizer import Tokenizer, pad, read_known
from service.kinds.text_classification.transformer import WindowedStudent
from service.session import session

BATCH = 32
"""Texts per call of the model: larger batches only need more padding."""


class Student:
    """A student loaded from a folder with ``model.onnx``, ``words.npz`` (the words seen in training) and ``variant.json``."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        settings = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        known = read_known(folder, settings["known_words"])
        # Releases from before these two settings existed lack them.
        salt, words = int(settings.get("salt", 1)), int(settings.get("words", 0))
        self.tokenizer = Tokenizer(settings["char_ngrams"], settings["bits"], known, salt, words)
        self.parameters = int(settings["parameters"])
        self._session = session(folder / "model.onnx", threads)
        self._has_features = any(output.name == "features" for output in self._session.get_outputs())

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Logits ``float32[texts, labels]`` of at least one normalised text, in order."""
        return self._run(["logits"], texts)[0]

    def outputs(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, features ``float32[texts, dimensions]``) of at least one text; 0 dimensions if the model has no features."""
        if not self._has_features:
            return self.logits(texts), np.zeros((len(texts), 0), dtype=np.float32)
        logits, features = self._run(["logits", "features"], texts)
        return logits, features

    def _run(self, output_names: list[str], texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        parts = []
        for start in range(0, len(texts), BATCH):
            rows = pad([self.tokenizer.encode(text) for text in texts[start : start + BATCH]])
            parts.append(self._session.run(output_names, {"rows": rows}))
        return parts[0] if len(parts) == 1 else [np.concatenate(batches) for batches in zip(*parts, strict=True)]


def load_student(folder: Path, threads: int = 1) -> Student | WindowedStudent:
    """Load the student in ``folder``, of the format in its ``variant.json``. Raises ValueError for an unsupported one."""
    found = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["format"]
    if found not in STUDENTS:
        raise ValueError(f"{folder}: format {found!r} is none of {', '.join(STUDENTS)}")
    return STUDENTS[found](folder, threads)


STUDENTS: dict[str, type[Student] | type[WindowedStudent]] = {"student": Student, "onnx-transformer": WindowedStudent}
"""The classes of servable students, by format."""
