"""tasks/metrics.py against scikit-learn, and what its bootstrap and choices promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from service.decision import decide, softmax
from tasks import metrics


def made_logits(rows: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, rows)
    truth[:labels] = np.arange(labels)
    logits = rng.normal(size=(rows, labels)).round(1)  # rounded, so that scores tie
    logits[np.arange(rows), truth] += 1.0
    return logits.astype(np.float32), truth


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 200), st.integers(0, 1000))
def test_ranking_agrees_with_scikit_learn_on_ties_and_weights(rows: int, seed: int) -> None:
    logits, truth = made_logits(rows, 2, seed)
    scores = logits[:, 1].astype(float) - logits[:, 0]
    weights = np.random.default_rng(seed).integers(0, 4, (3, rows)).astype(float)
    weights[:, :2] = 1.0
    weights[0] = 1.0
    found = metrics.resampled_ranking(logits, truth, weights, 1, 0.97)
    for row, weight in enumerate(weights):
        assert found["roc_auc"][row] == pytest.approx(reference.roc_auc_score(truth, scores, sample_weight=weight))
        assert found["pr_auc"][row] == pytest.approx(reference.average_precision_score(truth, scores, sample_weight=weight))
        fallout, recall, _ = reference.roc_curve(truth, scores, sample_weight=weight, drop_intermediate=False)
        assert found["fpr_at_recall"][row] == pytest.approx(fallout[recall >= 0.97 - 1e-12].min())


def test_many_labels_are_macro_averaged_one_against_the_rest() -> None:
    logits, truth = made_logits(200, 3, 1)
    found = metrics.ranking(logits, truth)
    shares = softmax(logits)
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(truth, shares, multi_class="ovr", average="macro"))
    assert found["pr_auc"] == pytest.approx(reference.average_precision_score(np.eye(3)[truth], shares, average="macro"))


def test_of_many_labels_a_resample_is_judged_by_those_that_it_holds() -> None:
    logits, truth = made_logits(200, 60, 3)
    drawn = metrics.bootstrap_weights(np.arange(200).astype(str), 50, 1)
    missing = sum(len(set(truth[weights > 0])) < 60 for weights in drawn)
    assert missing > 40, "most resamples lack one label or another"
    figures = metrics.resampled_ranking(logits, truth, drawn, None, 0.97)["pr_auc"]
    assert metrics.interval(figures) is not None
    held = drawn[0] > 0
    assert figures[0] == pytest.approx(metrics.ranking(logits[held], truth[held], weights=drawn[0][held])["pr_auc"])
    answers = logits.argmax(axis=1)
    assert metrics.interval(metrics.resampled_f1(answers, truth, drawn, None)) is not None


def test_f1_of_the_positive_label_and_macro() -> None:
    logits, truth = made_logits(200, 3, 2)
    answers = decide(softmax(logits), None, 0.0)
    ones = np.ones((1, 200))
    assert metrics.resampled_f1(answers, truth, ones, None)[0] == pytest.approx(
        reference.f1_score(truth, answers, average="macro")
    )
    two, truth = made_logits(200, 2, 3)
    answers = decide(softmax(two), 1, 0.7)
    assert metrics.resampled_f1(answers, truth, ones, 1)[0] == pytest.approx(reference.f1_score(truth, answers))
    assert (answers == (softmax(two)[:, 1] >= 0.7)).all()


def test_a_split_of_one_label_has_no_ranking_rather_than_a_wrong_one() -> None:
    logits, _ = made_logits(20, 2, 4)
    nothing = metrics.ranking(logits, np.zeros(20, dtype=int), positive=1)
    assert all(np.isnan(value) for value in nothing.values())
    assert metrics.round_all(nothing) == {"roc_auc": None, "pr_auc": None, "fpr_at_recall": None}


@settings(deadline=None)  # a busy machine is no fault of it
@given(st.integers(3, 60), st.integers(0, 500))
def test_the_threshold_chosen_has_the_highest_f1_of_all(rows: int, seed: int) -> None:
    logits, truth = made_logits(rows, 2, seed)
    scores, hits = softmax(logits)[:, 1], truth == 1
    chosen = reference.f1_score(hits, scores >= metrics.best_threshold(scores, hits, np.ones(len(hits))))
    assert chosen == pytest.approx(max(reference.f1_score(hits, scores >= other) for other in np.unique(scores)))


@given(st.integers(3, 40), st.integers(0, 500))
def test_a_weight_of_two_is_a_row_that_stands_twice(rows: int, seed: int) -> None:
    logits, truth = made_logits(rows, 2, seed)
    weights = np.random.default_rng(seed).integers(1, 4, rows)
    often = np.repeat(np.arange(rows), weights)
    scores, ones = softmax(logits)[:, 1], np.ones(len(often))
    chosen = metrics.best_threshold(scores, truth == 1, weights.astype(float))
    assert chosen == metrics.best_threshold(scores[often], truth[often] == 1, ones)
    temperature = metrics.temperature(logits, truth, weights.astype(float))
    assert temperature == pytest.approx(metrics.temperature(logits[often], truth[often], ones), rel=1e-4)
    ranked = metrics.ranking(logits, truth, 1, weights=weights.astype(float))
    assert ranked == pytest.approx(metrics.ranking(logits[often], truth[often], 1), nan_ok=True)


def test_temperature_is_the_one_that_was_hidden() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2)) * 3
    truth = (rng.random(20_000) < softmax(logits, 2.5)[:, 1]).astype(int)
    assert metrics.temperature(logits, truth, np.ones(len(truth))) == pytest.approx(2.5, rel=0.05)


def test_calibration_error_is_small_where_scores_are_true_and_large_where_not() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2)) * 2
    truth = (rng.random(20_000) < softmax(logits)[:, 1]).astype(int)
    ones = np.ones((1, 20_000))
    assert metrics.resampled_calibration_error(softmax(logits), truth, ones)[0] < 0.02
    assert metrics.resampled_calibration_error(softmax(logits, 0.2), truth, ones)[0] > 0.1


def test_a_bootstrap_draws_whole_groups() -> None:
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    weights = metrics.bootstrap_weights(groups, 200, seed=1)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert not (weights[:, 0] == weights[:, 2]).all()
    assert weights[:, [0, 2, 3]].sum(axis=1).tolist() == [3.0] * 200


def test_an_interval_holds_the_figure_it_is_for() -> None:
    logits, truth = made_logits(300, 2, 5)
    groups = np.arange(300).astype(str)
    weights = metrics.bootstrap_weights(groups, 300, seed=1)
    low, high = metrics.interval(metrics.resampled_ranking(logits, truth, weights, 1, 0.97)["pr_auc"]) or (1, 0)
    assert low < metrics.ranking(logits, truth)["pr_auc"] < high
    assert metrics.interval(np.array([np.nan, np.nan, 1.0])) is None
