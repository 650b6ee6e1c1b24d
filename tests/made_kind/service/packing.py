"""Sequences of whole numbers as bytes, and as rows of a model's table: the part that training shares with serving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NUMBERS = 64
"""Numbers from this minus one on are all alike to a model."""


def packed(sequence: Sequence[int]) -> bytes:
    return np.array(sequence, dtype=np.int64).tobytes()


def numbers_of(packed: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(packed, dtype=np.int64)


def first(packed: bytes, length: int) -> bytes:
    """A model input: the first numbers, at most ``length``."""
    return numbers_of(packed)[:length].tobytes()


def padded(inputs: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Rows of the table, ``int64[n, longest]``; behind the end of a sequence they are 0."""
    rows = np.zeros((len(inputs), max(map(len, inputs)) // 8), dtype=np.int64)
    for row, numbers in zip(rows, map(numbers_of, inputs), strict=True):
        row[: len(numbers)] = np.minimum(numbers, NUMBERS - 1) + 1
    return rows
