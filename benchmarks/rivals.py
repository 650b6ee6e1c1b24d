"""Other fast text classifiers, loaded from folders: Model2Vec and fastText, with the interface of our variants.

Heavy imports are deferred until a model is loaded, so that its memory can be measured (``benchmarks.memory``). Each is
loaded in its fastest form.
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
"""fastText's prefix of labels."""

_SYMBOLS = [symbol for symbol in string.punctuation if symbol != "_"]


class Rival(Protocol):
    """Normalised texts in, ``float32[texts, labels]`` out."""

    def logits(self, texts: Sequence[str]) -> Floats: ...


class Model2Vec:
    """Static embeddings and a logistic regression, computed by NumPy, which is faster than scikit-learn."""

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
    """Model2Vec's own classifier: embeddings and a small network, trained jointly."""

    def __init__(self, folder: Path) -> None:
        from model2vec.inference import StaticModelPipeline

        self._model = StaticModelPipeline.from_pretrained(folder)

    def logits(self, texts: Sequence[str]) -> Floats:
        return logarithms(self._model.predict_proba(list(texts)))


class FastText:
    """fastText through the C++ binding, as its Python method fails with NumPy 2."""

    def __init__(self, model: Any, labels: int) -> None:
        self._predict, self._labels = model.f.predict, labels

    @classmethod
    def load(cls, folder: Path) -> FastText:
        import fasttext

        fasttext.FastText.eprint = lambda *words: None  # suppresses an irrelevant warning
        labels = json.loads((folder / "variant.json").read_text(encoding="utf-8"))["labels"]
        return cls(fasttext.load_model(str(folder / "model.bin")), labels)

    def logits(self, texts: Sequence[str]) -> Floats:
        probabilities = np.zeros((len(texts), self._labels), dtype=np.float32)
        for row, text in zip(probabilities, texts, strict=True):
            # -1 as the threshold, so that labels of probability 0 are returned too.
            for probability, label in self._predict(preprocess(text) + "\n", self._labels, -1.0, "strict"):
                row[int(label[len(LABEL) :])] = probability
        return logarithms(probabilities)


def preprocess(text: str) -> str:
    """A text prepared as by fastText's authors: on one line, lower case, symbols separated from words."""
    text = text.lower().replace("\n", " ")
    for symbol in _SYMBOLS:  # a fifth of the time of one regular expression
        if symbol in text:
            text = text.replace(symbol, f" {symbol} ")
    return text


def logarithms(probabilities: npt.NDArray[np.floating]) -> Floats:
    """Logarithms of probabilities, clipped at the smallest float."""
    scores: Floats = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)).astype(np.float32)
    return scores


KINDS: dict[str, Callable[[Path], Rival]] = {
    "model2vec": Model2Vec,
    "model2vec-tuned": TunedModel2Vec,
    "fasttext": FastText.load,
}
