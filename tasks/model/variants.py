"""Loading of any model on the compression path from its folder, behind one interface.

A folder's ``variant.json`` names its kind. A new kind of model is one class and one line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from service.scorer import Student
from service.token_windows import tokenize
from service.transformer import WindowedStudent
from tasks.files import read_json
from tasks.model import baseline
from tasks.model.teacher import has_fast_bfloat16, load_teacher, predict
from tasks.stage import StageError


class Variant(Protocol):
    """A model for inference: normalised texts in, ``float32[texts, labels]`` out."""

    parameters: int

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class Tfidf:
    def __init__(self, folder: Path, threads: int) -> None:
        self._model = baseline.load(folder)
        self.parameters = int(read_json(folder / "variant.json")["parameters"])

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return baseline.logits(self._model, texts)


class Transformer:
    """The teacher in torch on the CPU, in bfloat16 where that is faster."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._threads = threads
        self._model, self._tokenizer, self._shape = load_teacher(folder)
        self._bfloat16 = has_fast_bfloat16(torch.device("cpu"))
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        torch.set_num_threads(self._threads)
        tokens = tokenize(self._tokenizer, texts, self._shape)
        return predict(self._model, tokens, self._tokenizer.pad_token_id or 0, torch.device("cpu"), self._bfloat16)


KINDS: dict[str, Callable[[Path, int], Variant]] = {
    "tfidf": Tfidf,
    "transformer": Transformer,
    "onnx-transformer": WindowedStudent,
    "student": Student,
}


def load_variant(folder: Path, threads: int) -> Variant:
    """The model in ``folder``, to run on ``threads`` threads. Raises StageError for a folder without a model."""
    try:
        kind = read_json(folder / "variant.json")["kind"]
    except OSError as error:
        raise StageError(f"{folder}: no variant.json, so no model that this project made") from error
    if kind not in KINDS:
        raise StageError(f"{folder}/variant.json: kind {kind!r} is none of {', '.join(KINDS)}")
    return KINDS[kind](folder, threads)
