"""A text as a transformer reads it: in windows of tokens, whose logits are averaged.

The teacher is trained and measured by these functions, and a student that is made of its layers is served by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CHARACTERS_PER_TOKEN = 8
"""Text is cut to this many characters a token before it is tokenized: the tokenizer's cost is in what it reads."""


@dataclass(frozen=True)
class TokenWindows:
    """How a long text is read: as up to ``count`` windows of ``tokens`` each, whose logits are averaged.

    Attention costs the square of a window's length, so four short ones are cheaper than one long one.
    """

    tokens: int
    count: int


def tokenize(tokenizer: Any, texts: Sequence[str], shape: TokenWindows) -> list[list[list[int]]]:
    """The windows of each text, one at least: token ids with special tokens, at most ``shape.tokens`` each."""
    rust = tokenizer.backend_tokenizer if hasattr(tokenizer, "backend_tokenizer") else tokenizer
    rust.no_padding()
    rust.enable_truncation(shape.tokens)
    encoded = rust.encode_batch([text[: shape.tokens * shape.count * CHARACTERS_PER_TOKEN] for text in texts])
    return [[part.ids for part in [first, *first.overflowing][: shape.count]] for first in encoded]


def flatten(windows: Sequence[Sequence[list[int]]]) -> list[tuple[int, list[int]]]:
    """(number of its text, window) of every window, shortest first, so that windows of like length share a batch."""
    return sorted(((owner, window) for owner, own in enumerate(windows) for window in own), key=lambda pair: len(pair[1]))


def merge(flat: Sequence[tuple[int, list[int]]], logits: npt.NDArray[np.float32], texts: int) -> npt.NDArray[np.float32]:
    """Logits of each text: the mean over its windows by their tokens, as if pooling had seen them all at once."""
    owners = np.array([owner for owner, _ in flat])
    weights = np.array([len(window) for _, window in flat], dtype=np.float64)
    total = np.zeros((texts, logits.shape[1]))
    np.add.at(total, owners, logits * weights[:, None])
    mean: npt.NDArray[np.float32] = (total / np.bincount(owners, weights, texts)[:, None]).astype(np.float32)
    return mean


def collate(tokens: Sequence[Sequence[int]], padding: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(ids, mask), each ``int64[batch, longest]``."""
    longest = max(map(len, tokens))
    ids = np.full((len(tokens), longest), padding, dtype=np.int64)
    mask = np.zeros((len(tokens), longest), dtype=np.int64)
    for number, row in enumerate(tokens):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
