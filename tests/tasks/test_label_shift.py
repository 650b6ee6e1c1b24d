"""tasks/release/label_shift.py: the mix is found from scores alone, and scores, weights and references follow it."""

from __future__ import annotations

import numpy as np
import pytest

from service.decision import softmax
from tasks.metrics import temperature
from tasks.release.label_shift import (
    best_temperature,
    estimated_mix,
    highest_threshold,
    rows_in,
    shifted,
    weighted_mix,
    weights_in,
)

BEFORE = np.array([0.5, 0.3, 0.2])
NOW = np.array([0.2, 0.2, 0.6])
CENTRES = 1.5 * np.eye(3)


def drawn(mix: np.ndarray, count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(labels, log-probabilities that are exact in the mix BEFORE) of messages whose labels occur in ``mix``."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, count, p=mix)
    points = CENTRES[labels] + rng.normal(size=(count, 3))
    return labels, points @ CENTRES.T - (CENTRES**2).sum(axis=1) / 2 + np.log(BEFORE)


def test_the_mix_is_found_from_the_scores_alone() -> None:
    labels, logits = drawn(NOW, 20_000)
    assert np.abs(softmax(logits).mean(axis=0) - NOW).max() > 0.05, "counting answers would be wrong"
    found = estimated_mix(softmax(logits), BEFORE)
    assert found == pytest.approx(np.bincount(labels) / len(labels), abs=0.01)
    assert estimated_mix(softmax(drawn(BEFORE, 20_000)[1]), BEFORE) == pytest.approx(BEFORE, abs=0.01)


def test_shifted_scores_mean_what_they_say_in_the_new_mix() -> None:
    labels, logits = drawn(NOW, 20_000)
    shift = shifted(np.zeros(3), BEFORE, NOW)
    assert softmax(logits + shift).mean(axis=0) == pytest.approx(NOW, abs=0.01)
    right = (softmax(logits + shift).argmax(axis=1) == labels).mean()
    assert right > (softmax(logits).argmax(axis=1) == labels).mean() + 0.02
    there_and_back = shifted(shifted(shift, NOW, BEFORE), BEFORE, NOW)
    assert there_and_back == pytest.approx(shift)


def test_no_mix_holds_a_label_that_could_never_come_again() -> None:
    certain = np.array([[1.0, 0.0, 0.0]] * 5)
    for mix in (estimated_mix(certain, BEFORE), estimated_mix(np.empty((0, 3)), BEFORE, np.array([9.0, 0, 0]))):
        assert mix.sum() == pytest.approx(1)
        assert mix.min() > 0.0009
        assert np.isfinite(shifted(np.zeros(3), BEFORE, mix)).all()


def test_confirmed_labels_count_as_they_are_and_the_rest_by_its_scores() -> None:
    counts = np.array([2.0, 1, 1])
    assert estimated_mix(np.empty((0, 3)), BEFORE, counts) == pytest.approx(counts / 4)
    labels, logits = drawn(NOW, 4000)
    known, rest = np.bincount(labels[:1000], minlength=3), softmax(logits[1000:])
    both = estimated_mix(rest, BEFORE, known)
    assert both == pytest.approx(np.bincount(labels) / 4000, abs=0.02)
    wrong = estimated_mix(rest, BEFORE, np.array([0, 0, 1000]))
    assert wrong[2] > both[2] + 0.05


def test_weights_follow_the_mix_and_keep_their_sum_and_their_proportions_within_a_label() -> None:
    labels, weights = np.array([0, 0, 0, 1, 1, 2]), np.array([1.0, 1, 3, 1, 1, 1])
    found = weights_in(NOW, labels, weights)
    assert weighted_mix(labels, found, 3) == pytest.approx(NOW)
    assert found.sum() == pytest.approx(weights.sum())
    assert found[2] / found[0] == pytest.approx(3)


def test_a_temperature_under_no_shift_is_the_one_that_evaluate_finds() -> None:
    labels, logits = drawn(BEFORE, 3000)
    weights = np.random.default_rng(0).uniform(1, 3, len(labels))
    assert best_temperature(2 * logits, np.zeros(3), labels, weights) == pytest.approx(
        temperature(2 * logits, labels, weights), rel=1e-3
    )


def test_as_many_rows_as_there_can_be_are_in_the_mix() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    rows = rows_in(NOW, labels, seed=1)
    assert np.bincount(labels[rows]) == pytest.approx(NOW * len(rows), abs=1)
    assert (labels[rows] == 2).sum() == 200, "all of the label that is scarce"
    assert (np.diff(rows) > 0).all()
    assert (rows_in(NOW, labels, seed=1) == rows).all()
    assert len(rows_in(BEFORE, labels, seed=1)) == 1000


def test_the_highest_threshold_finds_as_much_as_is_asked_and_the_next_does_not() -> None:
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([True, False, True, True, False])
    weights = np.array([1.0, 5, 1, 2, 5])
    for recall, expected in ((0.0, 0.85), (0.25, 0.85), (0.26, 0.65), (0.5, 0.65), (0.51, 0.55), (1.0, 0.55)):
        assert highest_threshold(scores, hits, weights, recall) == pytest.approx(expected)
    assert highest_threshold(scores, np.zeros(5, dtype=bool), weights, 0.9) == 1.0
    assert highest_threshold(np.array([0.4, 0.2]), np.array([True, True]), np.ones(2), 1.0) == pytest.approx(0.1)
