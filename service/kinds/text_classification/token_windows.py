"""Splits texts into windows of tokens for a transformer, and averages the windows' logits.

Training and evaluation of the teacher use these functions, as does serving of a student made of its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHARACTERS_PER_TOKEN = 8
"""Texts are cut to this many characters per token before tokenization, whose cost grows with its input."""


@dataclass(frozen=True)
class TokenWindows:
    """Up to ``count`` windows of ``tokens`` each per text; their logits are averaged.

    Attention is quadratic in a window's length, so four short windows are cheaper than one long one.
    """

    tokens: int
    count: int


def tokenize(tokenizer: Any, texts: Sequence[str], shape: TokenWindows) -> list[list[list[int]]]:
    """The windows of each text, at least one: token ids with special tokens, at most ``shape.tokens`` each."""
    backend = tokenizer.backend_tokenizer if hasattr(tokenizer, "backend_tokenizer") else tokenizer
    backend.no_padding()
    backend.enable_truncation(shape.tokens)
    encodings = backend.encode_batch([text[: shape.tokens * shape.count * CHARACTERS_PER_TOKEN] for text in texts])
    return [[window.ids for window in [encoding, *encoding.overflowing][: shape.count]] for encoding in encodings]


def flatten(windows: Sequence[Sequence[list[int]]]) -> list[tuple[int, list[int]]]:
    """(text number, window) of every window, shortest first, so that windows of similar length share a batch."""
    return sorted(
        ((text_number, window) for text_number, text_windows in enumerate(windows) for window in text_windows),
        key=lambda pair: len(pair[1]),
    )


def merge(flat: Sequence[tuple[int, list[int]]], logits: npt.NDArray[np.float32], texts: int) -> npt.NDArray[np.float32]:
    """Logits of each text: the mean over its windows weighted by their tokens, like pooling over the whole text."""
    text_numbers = np.array([text_number for text_number, _ in flat])
    weights = np.array([len(window) for _, window in flat], dtype=np.float64)
    total = np.zeros((texts, logits.shape[1]))
    np.add.at(total, text_numbers, logits * weights[:, None])
    mean: npt.NDArray[np.float32] = (total / np.bincount(text_numbers, weights, texts)[:, None]).astype(np.float32)
    return mean


def collate(tokens: Sequence[Sequence[int]], padding: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pad token ids. Returns (ids, mask), each ``int64[batch, longest]``."""
    longest = max(map(len, tokens))
    ids = np.full((len(tokens), longest), padding, dtype=np.int64)
    mask = np.zeros((len(tokens), longest), dtype=np.int64)
    for number, row in enumerate(tokens):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
