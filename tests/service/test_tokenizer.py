"""service/tokenizer.py: exact on every input, the same everywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tokenizer import PADDING, Tokenizer, pad, words_of

WORDS = Tokenizer(["the", "free", "!", "größe"], 32, 0, 0)
GRAMS = Tokenizer(["the", "free"], 32, 4, 64)


@given(st.text())
def test_rows_are_sorted_unique_and_in_range(text: str) -> None:
    for tokenizer in (WORDS, GRAMS):
        rows = tokenizer.encode(text)
        assert rows.dtype == np.int64
        assert list(rows) == sorted(set(rows.tolist()))
        assert all(PADDING < row < tokenizer.rows for row in rows)
        assert (len(rows) == 0) == (not words_of(text))


@given(st.text())
def test_case_and_spacing_do_not_matter(text: str) -> None:
    for tokenizer in (WORDS, GRAMS):
        assert (tokenizer.encode(text.lower()) == tokenizer.encode(text)).all()
        assert (tokenizer.encode(f"  {text}\n") == tokenizer.encode(text)).all()


def test_a_known_word_has_its_own_row_and_order_makes_other_pairs() -> None:
    assert WORDS.encode("free").tolist() == [2]
    assert WORDS.encode("GRÖSSE").tolist() != [4]
    assert WORDS.encode("Größe").tolist() == [4]
    assert set(WORDS.encode("the free").tolist()) != set(WORDS.encode("free the").tolist())


def test_another_process_gives_the_same_rows() -> None:
    text = "The unseen zebra — free! größe 中文"
    code = f"from service.tokenizer import Tokenizer; print(Tokenizer({GRAMS.words!r}, 32, 4, 64).encode({text!r}).tolist())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == str(GRAMS.encode(text).tolist())


def test_padding_keeps_rows_apart_and_an_empty_text_has_a_column() -> None:
    batch = pad([WORDS.encode("the free !"), WORDS.encode("")])
    assert batch.shape[0] == 2
    assert batch[1].tolist() == [PADDING] * batch.shape[1]
    assert pad([WORDS.encode("")]).shape == (1, 1)


def test_unknown_share() -> None:
    assert WORDS.unknown_share("the free lunch today") == 0.5
    assert WORDS.unknown_share("") == 0.0


def test_bad_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Tokenizer(["a", "a"], 4, 0, 0)
    with pytest.raises(ValueError, match="buckets = 0"):
        Tokenizer(["a"], 0, 0, 0)


@given(st.text(alphabet="abcd ", min_size=1, max_size=60))
def test_grams_are_those_of_the_folded_text_one_by_one(text: str) -> None:
    folded = f" {' '.join(text.split())} "
    runs = {folded[start : start + 4] for start in range(len(folded) - 3)}
    rows = GRAMS.encode(text)
    grams = {int(row) for row in rows if row >= GRAMS.rows - 64}
    if not words_of(text):
        assert len(rows) == 0
    else:
        assert grams == {GRAMS.rows - 64 + bucket_of(run, 64) for run in runs}


def bucket_of(run: str, buckets: int) -> int:
    """The polynomial hash in plain integers of 64 bits."""
    mix, hashed = 0x9E3779B97F4A7C15, 0
    for character in run:
        hashed = (hashed * mix + ord(character)) % 2**64
    return (hashed * mix % 2**64 >> 32) % buckets
