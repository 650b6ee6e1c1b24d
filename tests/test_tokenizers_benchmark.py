"""benchmarks/tokenizers.py: who is compared, and that they read; not how fast anything is."""

from __future__ import annotations

import numpy as np

from benchmarks.speed import LENGTHS
from benchmarks.tokenizers import OURS, hashing, in_a_graph, latency_us, table
from service.kinds.text_classification.tokenizer import Tokenizer, words_of

TEXT = "win a prize: click http://prize.example now"


def rows_of(text: str) -> list[int]:
    found: list[int] = in_a_graph().run(None, {"text": np.array([text], dtype=object)})[0][0].tolist()
    return found


def test_the_graph_reads_the_same_words_as_the_student() -> None:
    found = rows_of(TEXT)
    assert len(found) == len(words_of(TEXT))
    assert found[2] == found[words_of(TEXT).index("prize", 3)], "the same word is the same row"
    assert len(set(found)) == len(set(words_of(TEXT)))


def test_scikit_learn_makes_words_pairs_and_runs() -> None:
    words, runs = hashing(Tokenizer([5], 20, np.zeros(16, np.bool_), 1))(TEXT)
    count = len(words_of(TEXT))
    assert 0.9 * (2 * count - 1) <= words.nnz + 2 <= 2 * count + 1, "prize and / stand there twice"
    assert runs.nnz <= len(TEXT) - 4


def test_every_tokenizer_is_asked_at_every_length_and_compared_with_ours() -> None:
    asked: list[str] = []
    found = latency_us({OURS: asked.append, "other": asked.append}, {length: ["a", "b"] for length in LENGTHS}, 2)
    assert len(asked) == 2 * len(LENGTHS) * 2 * 3, "one round more, to warm up"
    assert set(found) == {OURS, "other"}
    lines = table({OURS: dict.fromkeys(map(str, LENGTHS), 50.0), "other": dict.fromkeys(map(str, LENGTHS), 75.0)}).splitlines()
    assert lines[-1] == "| other | " + " | ".join(["75 | 1.5"] * len(LENGTHS)) + " |"
