"""The student's tokenizer: feature hashing of words, word bigrams and character n-grams.

A text is lowercased and its whitespace collapsed. Its *features* are its words (runs of letters, digits and underscores;
every non-ASCII character counts as a letter) and single symbols, the bigrams of those, and character n-grams of the lengths
in ``char_ngrams``, across words. A feature's row is the top ``bits`` bits of its hash, so no vocabulary is stored. The hashes
are polynomials modulo 2**64 (Karp and Rabin 1987), mixed by a multiplication (Knuth, volume 3, 6.4). All hashes of a text are
computed at once, by array arithmetic, without a loop over its words. Most students read a text as the *set* of its rows; one
that reads words in order sets ``words``, and gets words only.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Characters = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]
"""Code points of a folded text."""

PADDING = 0
_WORD = re.compile("[0-9A-Za-z_\u0080-\U0010ffff]+|[^ ]")
_MIX = 0x9E3779B97F4A7C15
_BASE = np.uint64(_MIX)
_HALF = np.uint64(32)
_SYMBOL, _LETTER, _BLANK = 0, 1, 2
_ASCII = np.array(
    [_BLANK if chr(code) == " " else _LETTER if re.match(r"\w", chr(code)) else _SYMBOL for code in range(128)], dtype=np.uint8
)
_LAST_ASCII = np.uint32(127)
_FOLD_TABLE = bytes(ord(" ") if chr(code).isspace() else ord(chr(code).lower()) for code in range(128)) + bytes(128)


def fold(text: str) -> str:
    """The text as it is hashed: lowercased, runs of whitespace collapsed to one space, with a space at both ends."""
    return f" {' '.join(text.lower().split())} "


def words_of(text: str) -> list[str]:
    """The words and symbols of a text, lowercased, in order."""
    return _WORD.findall(fold(text))


@lru_cache(maxsize=4)
def _base_powers(count: int) -> tuple[Hashes, Hashes]:
    """(powers of the base, powers of its inverse) modulo 2**64, from exponent 0."""
    inverse = np.uint64(pow(_MIX, -1, 2**64))
    one = np.ones(1, dtype=np.uint64)
    powers, inverse_powers = (
        np.concatenate([one, np.cumprod(np.full(count, base, dtype=np.uint64))]) for base in (_BASE, inverse)
    )
    return powers, inverse_powers


def _characters(text: str) -> Characters:
    if text.isascii():  # most are, and one byte per character is faster to fold and to scan
        folded = text.encode("ascii").translate(_FOLD_TABLE).strip()
        if b"  " in folded:
            folded = b" ".join(folded.split())
        return np.frombuffer(b" %b " % folded, dtype=np.uint8)
    return np.frombuffer(fold(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _kinds(characters: Characters) -> npt.NDArray[np.uint8]:
    if characters.dtype == np.uint8:
        return _ASCII[characters]
    kinds = _ASCII[np.minimum(characters, _LAST_ASCII)]
    kinds[characters > _LAST_ASCII] = _LETTER
    return kinds


def _mix(hashes: Hashes) -> Hashes:
    """Mix the high half into the low half, which the high bits of a sum do not reach."""
    mixed: Hashes = (hashes ^ (hashes >> _HALF)) * _BASE
    return mixed


class FoldedText:
    """The folded characters of a text, with prefix sums from which any substring is hashed."""

    def __init__(self, text: str) -> None:
        self.characters = _characters(text)
        powers, self._inverse_powers = _base_powers(1 << len(self.characters).bit_length())
        self._prefix_sums = np.zeros(len(self.characters) + 1, dtype=np.uint64)
        np.cumsum(self.characters * powers[: len(self.characters)], out=self._prefix_sums[1:])

    def words(self) -> Hashes:
        """The hashes of the words and symbols, in order."""
        kinds = _kinds(self.characters)
        is_letter, is_symbol = kinds == _LETTER, kinds == _SYMBOL
        # Both ends are spaces, so every run of letters has a boundary on either side.
        starts = np.flatnonzero((is_letter[1:] & ~is_letter[:-1]) | is_symbol[1:]) + 1
        ends = np.flatnonzero((is_letter[:-1] & ~is_letter[1:]) | is_symbol[:-1]) + 1
        return _mix((self._prefix_sums[ends] - self._prefix_sums[starts]) * self._inverse_powers[starts] + _BASE)

    def char_ngrams(self, length: int) -> Hashes:
        """The hashes of the n-grams of ``length`` characters, in order; n-grams of different lengths are different features."""
        count = max(0, len(self.characters) - length + 1)
        sums = self._prefix_sums[length : length + count] - self._prefix_sums[:count]
        return _mix(sums * self._inverse_powers[:count] + np.uint64(length))


class Tokenizer:
    """Text to row numbers, ``int64[n]``: row 0 is padding, the others belong to features, by hash.

    The same arguments give the same rows on every machine and in every process. ``known`` marks the words seen in training,
    one bit per word hash, for ``unknown_share``; it may be empty. ``salt``, an odd number below 2**64, selects which features
    collide (multiply-shift, Dietzfelbinger et al. 1997). Rows are unique; with ``words`` above 0 they are instead the rows of
    the first ``words`` words and symbols, in order.
    """

    def __init__(
        self, char_ngrams: Sequence[int], bits: int, known: npt.NDArray[np.bool_], salt: int = 1, words: int = 0
    ) -> None:
        if not 4 <= bits <= 24 or any(length < 1 for length in char_ngrams):
            raise ValueError(f"bits = {bits}, char_ngrams = {list(char_ngrams)}: 4 to 24 bits, and lengths from 1")
        if not (0 < salt < 2**64 and salt % 2) or words < 0:
            raise ValueError(f"salt = {salt}, words = {words}: an odd salt of 64 bits, and no less than no words")
        if len(known) & (len(known) - 1):
            raise ValueError(f"{len(known)} known words: not a power of two")
        self.char_ngrams, self.bits, self.known, self.salt, self.words = tuple(char_ngrams), bits, known, salt, words
        self._salt = np.uint64(salt)
        self._scratch = threading.local()
        self._shift = np.uint64(64 - bits)
        self._known_shift = np.uint64(65 - len(known).bit_length())

    @property
    def rows(self) -> int:
        """Number of rows of an embedding table for this tokenizer."""
        return 1 + (1 << self.bits)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """The rows of one text; empty for a text without words."""
        folded = FoldedText(text)
        words = folded.words()
        if not len(words):
            return np.zeros(0, dtype=np.int64)
        if self.words:
            return self._rows(words[: self.words])
        bigrams = _mix(words[:-1] * _BASE + words[1:])
        hashes = np.concatenate([words, bigrams, *(folded.char_ngrams(length) for length in self.char_ngrams)])
        return self._unique(self._rows(hashes))

    def _unique(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The unique rows, each at its last position. Sorting or scanning the whole table would dominate the cost."""
        if not hasattr(self._scratch, "last"):
            # Entries of earlier texts are overwritten before they are read.
            self._scratch.last = np.zeros(self.rows, dtype=np.int32)
        positions = np.arange(len(rows), dtype=np.int32)
        self._scratch.last[rows] = positions
        unique: npt.NDArray[np.int64] = rows[self._scratch.last[rows] == positions]
        return unique

    def _rows(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        return ((hashes * self._salt) >> self._shift).view(np.int64) + 1

    def unknown_share(self, text: str) -> float:
        """Share of a text's words that were not seen in training; 0 for a text without words."""
        words = FoldedText(text).words()
        if not len(words) or not len(self.known):
            return 0.0
        return 1.0 - float(self.known[words >> self._known_shift].mean())


def read_known(folder: Path, count: int) -> npt.NDArray[np.bool_]:
    """``bool[count]`` of the model in ``folder``: which word hashes training saw."""
    with np.load(folder / "words.npz") as file:
        return np.unpackbits(file["known"], count=count).astype(np.bool_)


def known_words(texts: Sequence[str], min_documents: int, bits: int) -> npt.NDArray[np.bool_]:
    """Which of ``2**bits`` word hashes occur in at least ``min_documents`` of the texts."""
    shift = np.uint64(64 - bits)
    document_counts: Counter[int] = Counter()
    for text in texts:
        document_counts.update(set((FoldedText(text).words() >> shift).tolist()))
    known = np.zeros(1 << bits, dtype=np.bool_)
    known[[word_hash for word_hash, count in document_counts.items() if count >= min_documents]] = True
    return known


def pad(rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Encoded texts as one array ``int64[texts, longest]``, padded with ``PADDING``; at least one column."""
    if len(rows) == 1 and len(rows[0]):
        return rows[0][np.newaxis]
    longest = max([1, *(len(row) for row in rows)])
    batch = np.full((len(rows), longest), PADDING, dtype=np.int64)
    for number, row in enumerate(rows):
        batch[number, : len(row)] = row
    return batch
