"""Inference of a transformer student with ONNX Runtime and a Rust tokenizer, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.kinds.text_classification.token_windows import TokenWindows, collate, flatten, merge, tokenize
from service.kinds.text_classification.tokenizer import Tokenizer, read_known
from service.session import session

BATCH = 32
"""Windows per call of the model."""


class WindowedStudent:
    """A transformer loaded from a folder with ``model.onnx``, ``tokenizer.json`` and ``variant.json``.

    ``tokenizer`` only computes the share of unknown words (from ``words.npz``, if the folder has it).
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        from tokenizers import Tokenizer as SubwordTokenizer  # optional: only transformers need it

        settings = json.loads((folder / "variant.json").read_text(encoding="utf-8"))
        known = read_known(folder, settings["known_words"]) if "known_words" in settings else np.zeros(0, dtype=np.bool_)
        self.tokenizer = Tokenizer([], 4, known)
        self.parameters = int(settings["parameters"])
        self._shape, self._padding = TokenWindows(**settings["windows"]), settings["padding"]
        self._subword_tokenizer = SubwordTokenizer.from_file(str(folder / "tokenizer.json"))
        self._session = session(folder / "model.onnx", threads)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Logits ``float32[texts, labels]`` of at least one normalised text, in order."""
        windows = flatten(tokenize(self._subword_tokenizer, texts, self._shape))
        batches = []
        for start in range(0, len(windows), BATCH):
            ids, mask = collate([window for _, window in windows[start : start + BATCH]], self._padding)
            batches.append(self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0])
        return merge(windows, np.concatenate(batches), len(texts))

    def outputs(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(logits, features ``float32[texts, 0]``): a transformer outputs no features for drift monitoring."""
        return self.logits(texts), np.zeros((len(texts), 0), dtype=np.float32)
