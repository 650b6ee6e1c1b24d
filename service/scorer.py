"""The student at work: normalised texts in, logits out, with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.session import session
from service.tokenizer import Tokenizer, pad
from service.transformer import WindowedStudent

BATCH = 32
"""Texts in one call of the model: more only makes padding longer."""


class Student:
    """A student as a folder holds it: ``model.onnx``, ``words.npz`` (the words that it knows) and ``variant.json``."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        settings = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        with np.load(folder / "words.npz") as file:
            known = np.unpackbits(file["known"], count=settings["known_words"]).astype(np.bool_)
        # A release that was made before these two were settings has none of them.
        salt, words = int(settings.get("salt", 1)), int(settings.get("words", 0))
        self.tokenizer = Tokenizer(settings["char_ngrams"], settings["bits"], known, salt, words)
        self.parameters = int(settings["parameters"])
        self._session = session(folder / "model.onnx", threads)
        self._has_features = any(output.name == "features" for output in self._session.get_outputs())

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Logits ``float32[texts, labels]`` of normalised texts, in the order given. At least one text."""
        return self._run(["logits"], texts)[0]

    def outputs(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, features ``float32[texts, dimensions]``) of at least one text; no dimension where the model has none."""
        if not self._has_features:
            return self.logits(texts), np.zeros((len(texts), 0), dtype=np.float32)
        logits, features = self._run(["logits", "features"], texts)
        return logits, features

    def _run(self, wanted: list[str], texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        parts = []
        for start in range(0, len(texts), BATCH):
            rows = pad([self.tokenizer.encode(text) for text in texts[start : start + BATCH]])
            parts.append(self._session.run(wanted, {"rows": rows}))
        return parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]


def load_student(folder: Path, threads: int = 1) -> Student | WindowedStudent:
    """The student in ``folder``, of whatever kind its ``variant.json`` names. Raises ValueError for one that is not served."""
    kind = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["kind"]
    if kind not in STUDENTS:
        raise ValueError(f"{folder}: kind {kind!r} is none of {', '.join(STUDENTS)}")
    return STUDENTS[kind](folder, threads)


STUDENTS: dict[str, type[Student] | type[WindowedStudent]] = {"student": Student, "onnx-transformer": WindowedStudent}
"""What can be served, by kind."""
