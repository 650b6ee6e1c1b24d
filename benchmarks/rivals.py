"""Other fast classifiers of text, as a folder holds them: Model2Vec and fastText, asked as our variants are.

Nothing heavy is imported before a model is loaded, so that the memory of one process can be told (``benchmarks.memory``).
Each is loaded in the form in which it answers fastest.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

LABEL = "__label__"
"""What fastText knows a label by."""

_SYMBOLS = [symbol for symbol in string.punctuation if symbol != "_"]


class Rival(Protocol):
    """Normalised texts in, ``float32[texts, labels]`` out."""

    def logits(self, texts: Sequence[str]) -> Floats: ...


class Model2Vec:
    """Static embeddings and a logistic regression, whose product NumPy makes faster than scikit-learn."""

    def __init__(self, folder: Path) -> None:
        from model2vec import StaticModel

        # Its vectors are stored as float16; NumPy averages float32 faster.
        self._model = StaticModel.from_pretrained(folder, quantize_to="float32")
        with np.load(folder / "head.npz") as head:
            self._weights, self._bias = head["weights"], head["bias"]

    def logits(self, texts: Sequence[str]) -> Floats:
        scores: Floats = self._model.encode(list(texts)) @ self._weights + self._bias
        return scores


class TunedModel2Vec:
    """Model2Vec's own classifier: vectors and a small network, trained together."""

    def __init__(self, folder: Path) -> None:
        from model2vec.inference import StaticModelPipeline

        self._model = StaticModelPipeline.from_pretrained(folder)

    def logits(self, texts: Sequence[str]) -> Floats:
        return logarithms(self._model.predict_proba(list(texts)))


class FastText:
    """fastText by the C++ call below its Python method, which NumPy 2 breaks."""

    def __init__(self, model: Any, labels: int) -> None:
        self._predict, self._labels = model.f.predict, labels

    @classmethod
    def load(cls, folder: Path) -> FastText:
        import fasttext

        fasttext.FastText.eprint = lambda *words: None  # a warning about a class that nobody asked for
        labels = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["labels"]
        return cls(fasttext.load_model(str(folder / "model.bin")), labels)

    def logits(self, texts: Sequence[str]) -> Floats:
        probabilities = np.zeros((len(texts), self._labels), dtype=np.float32)
        for row, text in zip(probabilities, texts, strict=True):
            # -1, as a label of probability 0 is to be told too.
            for probability, label in self._predict(line(text) + "\n", self._labels, -1.0, "strict"):
                row[int(label[len(LABEL) :])] = probability
        return logarithms(probabilities)


def line(text: str) -> str:
    """A text as fastText's authors prepare it: in one line, lowered, symbols apart from words."""
    text = text.lower().replace("\n", " ")
    for symbol in _SYMBOLS:  # a fifth of what one regular expression costs
        if symbol in text:
            text = text.replace(symbol, f" {symbol} ")
    return text


def logarithms(probabilities: npt.NDArray[np.floating]) -> Floats:
    """Logits of probabilities; a 0 is as small as a float is."""
    scores: Floats = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    return scores


KINDS: dict[str, Callable[[Path], Rival]] = {
    "model2vec": Model2Vec,
    "model2vec-tuned": TunedModel2Vec,
    "fasttext": FastText.load,
}
