"""Any model of the compression path by its folder: the same question to each of them.

A folder's ``variant.json`` names its kind. A new kind of model is one class and one line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from service.scorer import Student, session
from tasks.model import baseline
from tasks.model.teacher import Windows, collate, flatten, has_fast_bfloat16, load_teacher, merge, predict, tokenize
from tasks.stage import StageError, read_json


class Variant(Protocol):
    """A model that answers: normalised texts in, ``float32[texts, labels]`` out."""

    parameters: int

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class Linear:
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


class OnnxTransformer:
    """The teacher in ONNX Runtime, with the Rust tokenizer alone: no torch, no transformers."""

    def __init__(self, folder: Path, threads: int) -> None:
        settings = read_json(folder / "variant.json")
        self.parameters = int(settings["parameters"])
        self._shape = Windows(**settings["windows"])
        self._padding = settings["padding"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._session = session(folder / "model.onnx", threads)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        flat = flatten(tokenize(self._tokenizer, texts, self._shape))
        parts = []
        for start in range(0, len(flat), 32):
            ids, mask = collate([window for _, window in flat[start : start + 32]], self._padding)
            parts.append(self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])
        return merge(flat, np.concatenate(parts), len(texts))


KINDS: dict[str, Callable[[Path, int], Variant]] = {
    "linear": Linear,
    "transformer": Transformer,
    "onnx-transformer": OnnxTransformer,
    "student": Student,
}


def load_variant(folder: Path, threads: int) -> Variant:
    """The model in ``folder``, to run on ``threads``. Raises StageError for a folder that is none."""
    try:
        kind = read_json(folder / "variant.json")["kind"]
    except OSError as error:
        raise StageError(f"{folder}: no variant.json, so no model that this project made") from error
    if kind not in KINDS:
        raise StageError(f"{folder}/variant.json: kind {kind!r} is none of {', '.join(KINDS)}")
    return KINDS[kind](folder, threads)
