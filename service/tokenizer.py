"""The student's tokenizer: words, pairs of neighbouring words, and runs of characters, each known by its hash.

A text is lowered and its blanks are folded. Its words (runs of letters, digits and underscores; every character beyond
ASCII counts as a letter) and single symbols, the pairs of those that are neighbours, and the runs of ``char_ngrams``
characters across words are its *features*. A feature's row is the top ``bits`` bits of its hash, so no vocabulary needs
to be kept. The hashes are polynomials modulo 2**64 (Karp and Rabin 1987) and their mixture (Knuth, volume 3, 6.4): all
of a text are made at once, by array arithmetic, without a loop over its words. Most students look at a text as the
*set* of its rows; one that reads words in their order asks for that, and is given words alone.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

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
_BEYOND = np.uint32(127)
_FOLDED = bytes(ord(" ") if chr(code).isspace() else ord(chr(code).lower()) for code in range(128)) + bytes(128)


def fold(text: str) -> str:
    """The text as its features see it: lowered, blanks folded to one and standing at both ends."""
    return f" {' '.join(text.lower().split())} "


def words_of(text: str) -> list[str]:
    """The words and symbols of a text, lowered, in order."""
    return _WORD.findall(fold(text))


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """The base's powers from 0 up, and those of its inverse modulo 2**64."""
    inverse = np.uint64(pow(_MIX, -1, 2**64))
    one = np.ones(1, dtype=np.uint64)
    up, down = (np.concatenate([one, np.cumprod(np.full(count, base, dtype=np.uint64))]) for base in (_BASE, inverse))
    return up, down


def _characters(text: str) -> Characters:
    if text.isascii():  # most are, and a byte a character is faster to fold and to look through
        folded = text.encode("ascii").translate(_FOLDED).strip()
        if b"  " in folded:
            folded = b" ".join(folded.split())
        return np.frombuffer(b" %b " % folded, dtype=np.uint8)
    return np.frombuffer(fold(text).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _kinds(characters: Characters) -> npt.NDArray[np.uint8]:
    if characters.dtype == np.uint8:
        return _ASCII[characters]
    kinds = _ASCII[np.minimum(characters, _BEYOND)]
    kinds[characters > _BEYOND] = _LETTER
    return kinds


def _mixed(hashed: Hashes) -> Hashes:
    """The low half knows nothing of a sum's high bits: it is told."""
    mixed: Hashes = (hashed ^ (hashed >> _HALF)) * _BASE
    return mixed


class Folded:
    """The folded characters of a text, with the sums that the hash of any run of them is made of."""

    def __init__(self, text: str) -> None:
        self.characters = _characters(text)
        up, self._down = _powers(1 << len(self.characters).bit_length())
        self._sums = np.zeros(len(self.characters) + 1, dtype=np.uint64)
        np.cumsum(self.characters * up[: len(self.characters)], out=self._sums[1:])

    def words(self) -> Hashes:
        """A hash of each word and symbol, in their order."""
        kinds = _kinds(self.characters)
        letter, symbol = kinds == _LETTER, kinds == _SYMBOL
        # Both ends are blanks, so every run of letters has a neighbour on either side.
        begins = np.flatnonzero((letter[1:] & ~letter[:-1]) | symbol[1:]) + 1
        ends = np.flatnonzero((letter[:-1] & ~letter[1:]) | symbol[:-1]) + 1
        return _mixed((self._sums[ends] - self._sums[begins]) * self._down[begins] + _BASE)

    def char_ngrams(self, length: int) -> Hashes:
        """A hash of each run of ``length`` characters, in order; runs of different lengths are different features."""
        count = max(0, len(self.characters) - length + 1)
        sums = self._sums[length : length + count] - self._sums[:count]
        return _mixed(sums * self._down[:count] + np.uint64(length))


class Tokenizer:
    """Text to row numbers, ``int64[n]``; row 0 is padding, the others are the features' by their hash.

    The same arguments give the same rows on every machine and in every process. ``known`` says which words training
    saw, one bit a word hash, so that the share of new ones can be told; it may be empty. ``salt``, an odd number below
    2**64, draws which features share a row (multiply-shift, Dietzfelbinger et al. 1997). Rows are unique;
    with ``words`` above 0 they are those of the first so many words and symbols, in their order, and of nothing else.
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
        self._seen = threading.local()
        self._shift = np.uint64(64 - bits)
        self._known_shift = np.uint64(65 - len(known).bit_length())

    @property
    def rows(self) -> int:
        """How many rows an embedding table for this tokenizer needs."""
        return 1 + (1 << self.bits)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """The rows of one text; empty for a text without words."""
        folded = Folded(text)
        words = folded.words()
        if not len(words):
            return np.zeros(0, dtype=np.int64)
        if self.words:
            return self._rows(words[: self.words])
        bigrams = _mixed(words[:-1] * _BASE + words[1:])
        hashed = np.concatenate([words, bigrams, *(folded.char_ngrams(length) for length in self.char_ngrams)])
        return self._unique(self._rows(hashed))

    def _unique(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Each row once, where it stands last: sorting, or a look at the whole table, would cost more than all else."""
        if not hasattr(self._seen, "last"):
            self._seen.last = np.zeros(self.rows, dtype=np.int32)  # what earlier texts left there is overwritten first
        places = np.arange(len(rows), dtype=np.int32)
        self._seen.last[rows] = places
        once: npt.NDArray[np.int64] = rows[self._seen.last[rows] == places]
        return once

    def _rows(self, hashed: Hashes) -> npt.NDArray[np.int64]:
        return ((hashed * self._salt) >> self._shift).view(np.int64) + 1

    def unknown_share(self, text: str) -> float:
        """Share of a text's words that training did not see; 0 for a text without words."""
        words = Folded(text).words()
        if not len(words) or not len(self.known):
            return 0.0
        return 1.0 - float(self.known[words >> self._known_shift].mean())


def known_words(texts: Sequence[str], min_documents: int, bits: int) -> npt.NDArray[np.bool_]:
    """Which of ``2**bits`` word hashes stand in ``min_documents`` of the texts."""
    shift = np.uint64(64 - bits)
    documents: Counter[int] = Counter()
    for text in texts:
        documents.update(set((Folded(text).words() >> shift).tolist()))
    known = np.zeros(1 << bits, dtype=np.bool_)
    known[[number for number, count in documents.items() if count >= min_documents]] = True
    return known


def pad(rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Encoded texts as one array ``int64[texts, longest]``, filled with ``PADDING``; at least one column."""
    if len(rows) == 1 and len(rows[0]):
        return rows[0][np.newaxis]
    longest = max([1, *(len(row) for row in rows)])
    batch = np.full((len(rows), longest), PADDING, dtype=np.int64)
    for number, row in enumerate(rows):
        batch[number, : len(row)] = row
    return batch
