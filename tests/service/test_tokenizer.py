"""service/kinds/text_classification/tokenizer.py: exact on every input, the same everywhere."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.kinds.text_classification.tokenizer import PADDING, Tokenizer, fold, known_words, pad, words_of

NONE = np.zeros(0, dtype=np.bool_)
WORDS = Tokenizer([], 20, NONE)
GRAMS = Tokenizer([4], 20, NONE)
SMALL = Tokenizer([3, 5], 6, NONE)
MIX = 0x9E3779B97F4A7C15


@given(st.text())
def test_rows_are_unique_and_in_range(text: str) -> None:
    for tokenizer in (WORDS, GRAMS, SMALL):
        rows = tokenizer.encode(text)
        assert rows.dtype == np.int64
        assert len(rows) == len(set(rows.tolist()))
        assert all(PADDING < row < tokenizer.rows for row in rows)
        assert (len(rows) == 0) == (not words_of(text))


@given(st.text())
@example("\ud800 lone surrogates \udfff")
def test_case_and_spacing_do_not_matter(text: str) -> None:
    for tokenizer in (WORDS, GRAMS):
        assert (tokenizer.encode(text.lower()) == tokenizer.encode(text)).all()
        assert (tokenizer.encode(f"  {text}\n") == tokenizer.encode(text)).all()


def polynomial(characters: str) -> int:
    """The sum of characters by powers of the base, in plain integers of 64 bits."""
    return sum(ord(character) * pow(MIX, place, 2**64) for place, character in enumerate(characters)) % 2**64


def mixed(hashed: int) -> int:
    hashed %= 2**64
    return (hashed ^ hashed >> 32) * MIX % 2**64


def gram(run: str) -> int:
    return mixed(polynomial(run) + len(run))


@given(
    st.text(max_size=80)
    | st.text(alphabet="ab_1.! é\n中", max_size=80)
    | st.text(alphabet=st.characters(max_codepoint=127), max_size=80)
)
@example("x" * 5000 + " a b " * 2000)
def test_rows_are_those_of_words_pairs_and_runs_one_by_one(text: str) -> None:
    words = [mixed(polynomial(word) + MIX) for word in words_of(text)]
    bigrams = [mixed(first * MIX + second) for first, second in itertools.pairwise(words)]
    folded = fold(text)
    runs = [gram(folded[start : start + 4]) for start in range(len(folded) - 3)] if words else []
    assert set(WORDS.encode(text).tolist()) == {(hashed >> 44) + 1 for hashed in words + bigrams}
    assert set(GRAMS.encode(text).tolist()) == {(hashed >> 44) + 1 for hashed in words + bigrams + runs}


def test_order_makes_other_pairs_and_letters_beyond_ascii_are_letters() -> None:
    assert len(WORDS.encode("free")) == 1
    assert set(WORDS.encode("the free").tolist()) != set(WORDS.encode("free the").tolist())
    assert words_of("Größe: 中文, e-mail_2 ½") == ["größe", ":", "中文", ",", "e", "-", "mail_2", "½"]


@given(st.text(max_size=200))
@example("free money " * 50)
def test_words_in_their_order_are_the_rows_of_each_word_alone(text: str) -> None:
    ordered = Tokenizer([4], 20, NONE, words=7)
    alone = [int(ordered.encode(word)[0]) for word in words_of(text)[:7]]
    assert ordered.encode(text).tolist() == alone


def test_a_salt_draws_which_features_share_a_row() -> None:
    text = "Claim your free prize now, and tell nobody about the kernel patch"
    drawn = {tuple(sorted(Tokenizer([4], 20, NONE, salt).encode(text).tolist())) for salt in (1, 3, 2**64 - 1)}
    assert len(drawn) == 3
    assert len({len(rows) for rows in drawn}) == 1
    for salt in (0, 2, 2**64 + 1, -1):
        with pytest.raises(ValueError, match="an odd salt of 64 bits"):
            Tokenizer([4], 20, NONE, salt)


def test_threads_that_read_at_once_do_not_disturb_each_other() -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"message {number} " * (1 + number % 50) + "free prize" for number in range(200)]
    expected = [GRAMS.encode(text).tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert [rows.tolist() for rows in pool.map(GRAMS.encode, texts)] == expected


def test_another_process_gives_the_same_rows() -> None:
    text = "The unseen zebra — free! größe 中文"
    made = "Tokenizer([4], 20, numpy.zeros(0, bool))"
    module = "service.kinds.text_classification.tokenizer"
    code = f"import numpy; from {module} import Tokenizer; print({made}.encode({text!r}).tolist())"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert other.stdout.strip() == str(GRAMS.encode(text).tolist())


def test_hashes_spread_evenly_over_the_rows() -> None:

    single = np.array([WORDS.encode(f"word{number}")[0] - 1 >> 14 for number in range(6400)])

    spread = np.bincount(single, minlength=64)
    assert ((spread - 100) ** 2 / 100).sum() < 110, "chi-squared with 63 degrees of freedom, 0.9998"


def test_padding_keeps_rows_apart_and_an_empty_text_has_a_column() -> None:
    batch = pad([WORDS.encode("the free !"), WORDS.encode("")])
    assert batch.shape[0] == 2
    assert batch[1].tolist() == [PADDING] * batch.shape[1]
    assert pad([WORDS.encode("")]).shape == (1, 1)


def test_unknown_share() -> None:
    known = known_words(["the free", "the Free !", "the rare"], 2, 16)
    assert known.sum() == 2
    tokenizer = Tokenizer([], 8, known)
    assert tokenizer.unknown_share("the FREE lunch today") == 0.5
    assert tokenizer.unknown_share("") == 0.0
    assert WORDS.unknown_share("nothing is known of any word") == 0.0


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="bits = 3"):
        Tokenizer([4], 3, NONE)
    with pytest.raises(ValueError, match=r"char_ngrams = \[0\]"):
        Tokenizer([0], 8, NONE)
    with pytest.raises(ValueError, match="3 known words"):
        Tokenizer([], 8, np.zeros(3, dtype=np.bool_))
