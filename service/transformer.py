"""A transformer at work: with ONNX Runtime and its tokenizer in Rust, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.session import session
from service.token_windows import TokenWindows, collate, flatten, merge, tokenize
from service.tokenizer import Tokenizer

BATCH = 32
"""Windows in one call of the model."""


class WindowedStudent:
    """A transformer as a folder holds it: ``model.onnx``, ``tokenizer.json``, ``variant.json``.

    ``tokenizer`` tells new words from known ones (``words.npz``, where the folder has it) and reads nothing else.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        from tokenizers import Tokenizer as Pieces  # a service without a transformer need not have it

        settings = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        known = np.zeros(0, dtype=np.bool_)
        if "known_words" in settings:
            with np.load(folder / "words.npz") as file:
                known = np.unpackbits(file["known"], count=settings["known_words"]).astype(np.bool_)
        self.tokenizer = Tokenizer([], 4, known)
        self.parameters = int(settings["parameters"])
        self._shape, self._padding = TokenWindows(**settings["windows"]), settings["padding"]
        self._pieces = Pieces.from_file(str(folder / "tokenizer.json"))
        self._session = session(folder / "model.onnx", threads)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Logits ``float32[texts, labels]`` of normalised texts, in the order given. At least one text."""
        flat = flatten(tokenize(self._pieces, texts, self._shape))
        parts = []
        for start in range(0, len(flat), BATCH):
            ids, mask = collate([window for _, window in flat[start : start + BATCH]], self._padding)
            parts.append(self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])
        return merge(flat, np.concatenate(parts), len(texts))

    def outputs(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, features ``float32[texts, 0]``): a transformer tells no features that drift could be watched on."""
        return self.logits(texts), np.zeros((len(texts), 0), dtype=np.float32)
