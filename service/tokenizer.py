"""The student's tokenizer: words of its own vocabulary, hashed pairs of neighbours, hashed runs of characters.

A text is lowered and cut into words and single symbols. A word of the vocabulary has a row of its own; any other
word shares one of ``buckets`` rows by its CRC-32, and each pair of neighbouring words shares one by a
multiplicative hash (Knuth, volume 3, 6.4) of the two ids. Runs of ``gram`` characters, across words, share
``gram_buckets`` rows by a polynomial hash: they see through the misspellings and new words that a vocabulary
cannot know. The student looks at a text as the *set* of its rows.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PADDING = 0
_TOKEN = re.compile(r"\w+|[^\w\s]")
_MIX = np.uint64(0x9E3779B97F4A7C15)


def words_of(text: str) -> list[str]:
    """The words and symbols of a text, lowered, in order."""
    return _TOKEN.findall(text.lower())


class Tokenizer:
    """Text to sorted, unique row numbers. Row 0 is padding; then the vocabulary, the buckets, the gram buckets.

    The same arguments give the same rows on every machine and in every process. ``gram`` 0 means no grams.
    """

    def __init__(self, words: Sequence[str], buckets: int, gram: int, gram_buckets: int) -> None:
        if len(set(words)) != len(words):
            raise ValueError("a vocabulary must not hold a word twice")
        if buckets < 1 or (gram and gram_buckets < 1):
            raise ValueError(f"buckets = {buckets}, gram_buckets = {gram_buckets}: at least one of each that is used")
        self.words = list(words)
        self.buckets, self.gram, self.gram_buckets = buckets, gram, gram_buckets
        self._row = {word: row for row, word in enumerate(words, start=1)}
        self._first_bucket = 1 + len(words)
        self._first_gram = self._first_bucket + buckets

    @property
    def rows(self) -> int:
        """How many rows an embedding table for this tokenizer needs."""
        return self._first_gram + (self.gram_buckets if self.gram else 0)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """The rows of one text, ``int64[n]``, sorted and unique; empty for a text without words."""
        lower = text.lower()
        row, first, buckets = self._row, self._first_bucket, self.buckets
        ids = np.array(
            [row.get(word) or first + zlib.crc32(word.encode("utf-8", "replace")) % buckets for word in _TOKEN.findall(lower)],
            dtype=np.int64,
        )
        if not len(ids):
            return ids
        mixed = (ids[:-1].astype(np.uint64) * _MIX + ids[1:].astype(np.uint64)) * _MIX
        pairs = first + _bucket(mixed, buckets)
        words = np.unique(np.concatenate([ids, pairs]))
        return np.concatenate([words, self._grams(lower)]) if self.gram else words

    def _grams(self, lower: str) -> npt.NDArray[np.int64]:
        """Rows of the runs of ``gram`` characters, blanks folded to one and standing at both ends."""
        folded = f" {' '.join(lower.split())} "
        characters = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        count = max(0, len(characters) - self.gram + 1)
        hashed = np.zeros(count, dtype=np.uint64)
        for offset in range(self.gram):
            hashed = hashed * _MIX + characters[offset : offset + count]
        return self._first_gram + np.unique(_bucket(hashed * _MIX, self.gram_buckets))

    def unknown_share(self, text: str) -> float:
        """Share of a text's words that are not in the vocabulary; 0 for a text without words."""
        found = words_of(text)
        return sum(word not in self._row for word in found) / len(found) if found else 0.0


def _bucket(hashed: npt.NDArray[np.uint64], buckets: int) -> npt.NDArray[np.int64]:
    """The high half of each hash, where its bits are mixed best, as a number below ``buckets``."""
    return ((hashed >> np.uint64(32)) % np.uint64(buckets)).astype(np.int64)


def pad(rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Encoded texts as one array ``int64[texts, longest]``, filled with ``PADDING``; at least one column."""
    longest = max([1, *(len(row) for row in rows)])
    batch = np.full((len(rows), longest), PADDING, dtype=np.int64)
    for number, row in enumerate(rows):
        batch[number, : len(row)] = row
    return batch
