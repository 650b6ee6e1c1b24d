"""tasks/release/threshold.py: both rules do what they say, weights count, and the break-even point moves less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.release.threshold import RULES, break_even


@given(st.integers(2, 60), st.integers(0, 1000))
def test_as_much_is_answered_positive_as_there_is_of_it(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, hits = rng.random(rows), rng.random(rows) < 0.4
    hits[0] = True
    answered = scores >= break_even(scores, hits, np.ones(rows))
    assert answered.sum() == hits.sum()
    assert (answered & ~hits).sum() == (hits & ~answered).sum(), "precision equals recall"


def test_equal_scores_are_one_threshold() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    threshold = break_even(scores, np.array([True, True, False, False, False]), np.ones(5))
    assert threshold == pytest.approx(0.7), "one too few is nearer than two too many"


def test_a_row_of_weight_three_counts_as_three() -> None:
    rng = np.random.default_rng(3)
    scores, hits = rng.random(40), rng.random(40) < 0.5
    weights = rng.integers(1, 4, 40)
    often = np.repeat(np.arange(40), weights)
    assert break_even(scores, hits, weights.astype(float)) == break_even(scores[often], hits[often], np.ones(len(often)))


def test_drawn_again_the_break_even_point_moves_less_than_the_best_f1() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(520) < 0.4
    logits = rng.normal(np.where(hits, 2.0, -2.0), 1.3)
    scores = 1 / (1 + np.exp(-logits))
    spread = {}
    for name, rule in RULES.items():
        drawn = [rule(scores[rows], hits[rows], np.ones(520)) for rows in rng.integers(0, 520, (200, 520))]
        spread[name] = np.std(np.log(drawn) - np.log1p(-np.array(drawn)))
    assert spread["break_even"] < spread["f1"]
