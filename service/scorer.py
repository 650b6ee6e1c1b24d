"""The student at work: normalised texts in, logits out, with ONNX Runtime and NumPy alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.tokenizer import Tokenizer, pad

BATCH = 32
"""Texts in one call of the model: more only makes padding longer."""


def session(model: Path, threads: int) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU that does not spin: idle threads must not slow their neighbours."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


class Student:
    """A student as a folder holds it: ``model.onnx``, ``words.npz`` (the words that it knows) and ``variant.json``."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        settings = json.loads((folder / "variant.json").read_text())
        with np.load(folder / "words.npz") as words:
            known = np.unpackbits(words["known"], count=settings["known_words"]).astype(np.bool_)
        self.tokenizer = Tokenizer(settings["grams"], settings["bits"], known)
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
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
