"""The gate of every compression step: each figure alone makes it fail, and says which it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.compress.parity import Logits, Parity, ParityLimits, ParityRows, ScoreLimits, broken, compare, enforce
from tasks.stage import StageError
from tests.conftest import made_prepared

SCORES = ScoreLimits(largest=0.1, mean=0.01, disagreement_rate=0.01)
WIDE = ParityLimits(largest=1, mean=1, disagreement_rate=1, threshold_disagreement=1, worst_slice=1, slice_rows=10)
"""Bounds that all figures are within: a test tightens the one that it is about."""


def logits_of(scores: Any) -> Logits:
    """Logits of two labels, the second of which has these probabilities."""
    positive = np.asarray(scores, dtype=np.float64)
    return np.stack([np.log(1 - positive), np.log(positive)], axis=1).astype(np.float32)


def asked(labels: Any, sources: Any = None, positive: int | None = 1) -> ParityRows:
    numbers = np.asarray(labels, dtype=np.int64)
    named = np.full(len(numbers), "all") if sources is None else np.asarray(sources)
    return ParityRows(numbers, named, np.ones(len(numbers)), positive, WIDE.slice_rows)


def test_parity_of_equal_models_is_zero_and_a_difference_is_in_scores() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    assert compare(logits, logits) == Parity(0.0, 0.0, 0.0, (0, 1, 2))
    assert compare(logits, logits + 5).largest < 1e-6, "logits are equal up to a constant a row"
    assert set(compare(logits, logits).figures()) == {"largest", "mean", "disagreement_rate"}
    whole = compare(logits, logits, asked(logits.argmax(axis=1), positive=None))
    assert set(whole.figures().values()) == {0.0}
    assert enforce(whole, WIDE, "distill.parity") == whole.figures()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda logits: logits[:, ::-1], "disagreement_rate"),
        (lambda logits: logits * 0.2, "largest"),
        (lambda logits: logits + np.eye(2, dtype=np.float32)[0] * 2, "mean"),
        (lambda logits: np.where(np.arange(len(logits))[:, None] == 3, np.nan, logits), "not a finite number"),
        (lambda logits: logits[:-1], "cannot be compared"),
        (lambda logits: logits[:, :1], "cannot be compared"),
    ],
)
def test_the_gate_names_the_figure_that_is_over(spoil: Any, says: str) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32) * 2
    with pytest.raises(StageError, match=says):
        enforce(compare(logits, spoil(logits)), SCORES, "quantize.parity")


@pytest.mark.parametrize("name", ["largest", "mean", "disagreement_rate", "threshold_disagreement", "worst_slice"])
def test_each_figure_alone_makes_the_gate_fail(name: str) -> None:
    parity = replace(Parity(0.0, 0.0, 0.0, (0, 1), 0.0, 0.0), **{name: 0.2})
    says = f"parent: {name} = 0.2, at most 0.1 (params.yaml: quantize.parity.{name})"
    assert broken(parity, WIDE.model_copy(update={name: 0.1}), "quantize.parity") == [says.removeprefix("parent: ")]
    assert broken(parity, WIDE, "quantize.parity") == []
    for value in (float("nan"), None):
        with pytest.raises(StageError, match=f"{name} = nan"):
            enforce(replace(parity, **{name: value}), WIDE, "quantize.parity")


def test_figures_that_are_bounded_and_were_not_measured_fail() -> None:
    logits = logits_of([0.1, 0.9])
    assert [line.split()[0] for line in broken(compare(logits, logits), WIDE, "x")] == ["threshold_disagreement", "worst_slice"]


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (0, 2, 1)])
def test_labels_in_another_order_are_named_as_such(order: tuple[int, ...]) -> None:
    logits = np.random.default_rng(1).normal(size=(60, len(order))).astype(np.float32)
    child = np.empty_like(logits)
    child[:, order] = logits * 0.7
    parity = compare(logits, child, asked(logits.argmax(axis=1), positive=None))
    assert parity.order == order
    found = broken(parity, WIDE, "distill.parity")
    assert len(found) == 1
    moved = next(label for label, other in enumerate(order) if label != other)
    assert found[0].startswith(f"label order: by their scores, labels agree better in another one ({moved} as the parent's")


def test_a_child_that_is_unsure_or_leans_to_one_label_has_its_labels_in_order() -> None:
    logits = logits_of(np.linspace(0.45, 0.6, 40))
    assert compare(logits, logits + np.array([0.5, 0], np.float32)).order == (0, 1), "its scores are nearer when swapped"
    assert compare(logits, np.zeros_like(logits)).order == (0, 1), "it knows nothing"


def test_answers_that_differ_at_the_parent_s_threshold_and_not_at_one_half() -> None:
    labels = [0] * 30 + [1] * 30
    before = [0.05] * 30 + [0.25] * 30  # the best threshold is midway: 0.15
    parity = compare(logits_of(before), logits_of([0.05] * 30 + [0.25] * 24 + [0.1] * 6), asked(labels))
    assert parity.disagreement_rate == 0
    assert parity.threshold_disagreement == pytest.approx(0.1)
    with pytest.raises(
        StageError, match=r"parent: threshold_disagreement = 0.1, at most 0.05 \(params.yaml: distill.parity.thr"
    ):
        enforce(parity, WIDE.model_copy(update={"threshold_disagreement": 0.05}), "distill.parity")
    both = compare(logits_of(before), logits_of([0.6] * 3 + before[3:]), asked(labels, positive=None))
    assert both.threshold_disagreement == both.disagreement_rate == pytest.approx(0.05), (
        "no label stands out: the likeliest is answered"
    )


def test_a_loss_on_one_source_is_seen_where_the_whole_hides_it() -> None:
    labels = np.tile([0, 1], 100)
    sources = np.array(["list"] * 180 + ["new"] * 15 + ["rare"] * 5)
    before = np.where(labels == 1, 0.9, 0.1)
    after = before.copy()
    after[[181, 183, 185]] = 0.1  # of "new"
    after[196:] = 1 - before[196:]  # of "rare", which is too small to be looked at
    parity = compare(logits_of(before), logits_of(after), asked(labels, sources))
    assert parity.worst_slice == pytest.approx(3 / 15)
    with pytest.raises(StageError, match=r"parent: worst_slice = 0.2, at most 0.15 \(params.yaml: distill.parity.worst_slice"):
        enforce(parity, WIDE.model_copy(update={"worst_slice": 0.15}), "distill.parity")
    better = compare(logits_of(after), logits_of(before), asked(labels, sources))
    assert better.worst_slice == 0, "of a child that gains on one source and is level on another"
    assert compare(logits_of(before), logits_of(after), asked(labels, np.arange(200).astype(str))).worst_slice == 0


def test_what_was_asked_comes_of_the_prepared_rows() -> None:
    frame = made_prepared(["ham", "spam"], 30)
    found = ParityRows.of(frame, {"labels": ["ham", "spam"], "positive": "spam"}, 7)
    assert (found.positive, found.slice_rows) == (1, 7)
    assert found.labels.tolist() == frame.label_id.tolist()
    assert found.sources.tolist() == frame.source.tolist()
    assert ParityRows.of(frame, {"labels": ["ham", "spam"], "positive": None}, 7).positive is None
