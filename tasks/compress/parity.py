"""Parity of a compressed model with its parent: how far scores and decisions differ. Each compression step is checked.

Scores are always compared. Where the rows are known (``ParityRows``) the decisions are too: scores may be close on
average while the decisions near the threshold, or those of one source, are not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from service.decision import decide, positive_index, softmax
from tasks.metrics import best_threshold
from tasks.stage import Settings, StageError

Logits = npt.NDArray[np.float32]


class ScoreLimits(Settings):
    """How far a model's scores may be from its parent's on the valid split; scores are probabilities."""

    largest: float
    """Largest absolute difference of any score."""
    mean: float
    """Mean absolute difference of scores."""
    disagreement_rate: float
    """Share of rows whose most likely label differs."""


class ParityLimits(ScoreLimits):
    """How far scores and decisions may be from the parent's on the valid split."""

    threshold_disagreement: float
    """Share of rows decided differently when both models use the parent's best threshold."""
    worst_slice: float
    """Largest loss of accuracy at that threshold over the sources; a share of the source's rows."""
    slice_rows: int = Field(ge=1)
    """A source with fewer rows is not compared on its own."""


@dataclass(frozen=True)
class ParityRows:
    """The rows that both models score, each array ``[n]``, with what their decisions are compared by."""

    labels: npt.NDArray[np.int64]
    sources: npt.NDArray[np.str_]
    weights: npt.NDArray[np.float64]
    positive: int | None
    slice_rows: int

    @classmethod
    def of(cls, rows: pd.DataFrame, schema: dict[str, Any], slice_rows: int) -> ParityRows:
        """The prepared ``rows``, under ``schema`` as the stage prepare writes it."""
        positive = positive_index(schema)
        labels, weights = rows.label_id.to_numpy(dtype=np.int64), rows.weight.to_numpy(dtype=np.float64)
        return cls(labels, rows.source.to_numpy(dtype=str), weights, positive, slice_rows)


@dataclass(frozen=True)
class Parity:
    """How far a model is from its parent; figures as in ``ParityLimits``, None where only scores were compared."""

    largest: float
    mean: float
    disagreement_rate: float
    order: tuple[int, ...]
    """For each label of the parent the child's best correlated column: 0, 1, ... unless labels were mixed up."""
    threshold_disagreement: float | None = None
    worst_slice: float | None = None

    def figures(self) -> dict[str, float]:
        """The measured figures, by their names in ``ParityLimits``."""
        return {name: value for name, value in asdict(self).items() if name != "order" and value is not None}


def compare(parent: Logits, child: Logits, rows: ParityRows | None = None) -> Parity:
    """Parity of two sets of logits ``[n, labels]`` over the same inputs; with ``rows``, of their decisions too.

    Raises StageError where the shapes differ or a logit is not finite: no bound applies to that.
    """
    if parent.shape != child.shape or not len(parent):
        raise StageError(f"logits of {parent.shape} and {child.shape} cannot be compared")
    if not (np.isfinite(parent).all() and np.isfinite(child).all()):
        raise StageError("a logit is not a finite number")
    child_scores, parent_scores = softmax(child), softmax(parent)
    gap = np.abs(parent_scores - child_scores)
    disagreement_rate = float((parent.argmax(axis=1) != child.argmax(axis=1)).mean())
    answers = (None, None) if rows is None else _answers(parent_scores, child_scores, rows)
    return Parity(float(gap.max()), float(gap.mean()), disagreement_rate, _order(parent_scores, child_scores), *answers)


def _order(parent: npt.NDArray[np.float64], child: npt.NDArray[np.float64]) -> tuple[int, ...]:
    """The order of the child's columns that correlates best with the parent's; its own, where none does better.

    Correlation, not distance: a model that is unsure, or biased to one label, has not mixed up its labels.
    """
    parent_centred, child_centred = (scores - scores.mean(axis=0) for scores in (parent, child))
    lengths = np.outer(np.linalg.norm(parent_centred, axis=0), np.linalg.norm(child_centred, axis=0))
    agreement = parent_centred.T @ child_centred / np.maximum(lengths, 1e-12)  # a constant column correlates with none
    labels, columns = linear_sum_assignment(agreement, maximize=True)
    better = agreement[labels, columns].sum() > agreement.trace() + 1e-9
    return tuple(int(column) for column in (columns if better else labels))


def _answers(parent: npt.NDArray[np.float64], child: npt.NDArray[np.float64], rows: ParityRows) -> tuple[float, float]:
    """(threshold_disagreement, worst_slice) of two sets of probabilities; the second is 0 where no source is large enough."""
    threshold = 0.0
    if rows.positive is not None:
        threshold = best_threshold(parent[:, rows.positive], rows.labels == rows.positive, rows.weights)
    parent_answers, child_answers = (decide(scores, rows.positive, threshold) for scores in (parent, child))
    lost = (parent_answers == rows.labels).astype(np.int64) - (child_answers == rows.labels)
    names, source, counts = np.unique(rows.sources, return_inverse=True, return_counts=True)
    losses = (np.bincount(source, lost, len(names)) / counts)[counts >= rows.slice_rows]
    return float((parent_answers != child_answers).mean()), float(losses.max()) if len(losses) else 0.0


def broken(parity: Parity, limits: ScoreLimits, where: str) -> list[str]:
    """The figures that break ``limits``, each with its value, its bound and its parameter below ``where``.

    A bounded figure that was not measured, or is NaN, counts as out of bounds.
    """
    figures = parity.figures()
    bounds: dict[str, float] = limits.model_dump(exclude={"slice_rows"})
    over = [
        f"{name} = {figures.get(name, np.nan):.4g}, at most {bound:g} (params.yaml: {where}.{name})"
        for name, bound in bounds.items()
        if not figures.get(name, np.nan) <= bound
    ]
    if parity.order != tuple(range(len(parity.order))):  # no bound: any other order is wrong
        moved = [f"{label} as the parent's {other}" for label, other in enumerate(parity.order) if label != other]
        rest = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
        over.append(f"label order: by their scores, labels agree better in another one ({', '.join(moved[:3])}{rest})")
    return over


def enforce(parity: Parity, limits: ScoreLimits, where: str) -> dict[str, float]:
    """The figures, where all are within ``limits``. Raises StageError that names each that is not."""
    if over := broken(parity, limits, where):
        raise StageError(f"the model does not agree with its parent: {'; '.join(over)}")
    return parity.figures()


def reported(parity: Parity, limits: ScoreLimits, where: str) -> list[str]:
    """The result of ``broken``, also printed: for a step whose model is judged as a whole later, by the rule of choice."""
    over = broken(parity, limits, where)
    for line in over:
        print(f"does not agree with its parent: {line}")
    return over
