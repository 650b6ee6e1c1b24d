"""The data a student is trained on, and the distillation loss.

The loss is that of Hinton, Vinyals and Dean (2015): cross-entropy with the label, plus the Kullback-Leibler divergence from
the teacher's softened probabilities, multiplied by the square of the temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor, log_softmax, nn

from tasks.stage import Paths, Settings, StageError

TEACHER = "teacher"
"""The folder below models/ whose logits of all rows are in ``data/logits.npz``."""
UNLABELLED = -1
"""The label of an input that has none: only the teacher's term of the loss applies to it."""


class DistillLoss(Settings):
    """Temperature and weights of the two terms of the loss."""

    temperature: float = Field(gt=0)
    """Divides the logits of student and teacher before they are compared."""
    teacher_share: float = Field(ge=0, le=1)
    """Weight of the teacher's term in the loss, 0 to 1; the rest is the label's."""


@dataclass(frozen=True)
class DistillData:
    """Encoded inputs of one split with teacher logits, labels and weights."""

    inputs: Sequence[Any]
    teacher: npt.NDArray[np.float32]
    """Logits ``float32[n, labels]``."""
    labels: npt.NDArray[np.int64]
    """``UNLABELLED`` where an input has none."""
    weights: npt.NDArray[np.float64]


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, distill_loss: DistillLoss) -> Tensor:
    """Weighted sum of both terms for logits ``[n, labels]``, averaged over rows with ``weights[n]``.

    The square of the temperature keeps gradients of the same size at any temperature.
    """
    label_loss = nn.functional.cross_entropy(student, labels, reduction="none", ignore_index=UNLABELLED)
    divergences = nn.functional.kl_div(
        log_softmax(student / distill_loss.temperature, dim=1),
        log_softmax(teacher / distill_loss.temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    share = distill_loss.teacher_share
    losses = (1 - share) * label_loss + share * distill_loss.temperature**2 * divergences.sum(dim=1)
    return (losses * weights).mean()


def teacher_logits(paths: Paths, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """The teacher's logits of these rows, in this order. Raises StageError where a row has none."""
    with np.load(paths.logits) as stored:
        row_of = {row_id: row for row, row_id in enumerate(stored["ids"])}
        try:
            logits: npt.NDArray[np.float32] = stored["logits"][[row_of[row_id] for row_id in ids]]
        except KeyError as error:
            raise StageError(f"{paths.logits.name}: the teacher never saw row {error}; run train again") from error
    return logits
