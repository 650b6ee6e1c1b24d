"""What a student learns from, and the loss that says how well it has.

The loss is that of Hinton, Vinyals and Dean (2015): cross-entropy with the label, and Kullback-Leibler divergence
from the teacher's probabilities at a temperature, weighed by its square.
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
"""The folder below models/ whose logits of all messages ``data/logits.npz`` holds."""
UNLABELLED = -1
"""The label of a text that has none: its teacher's word is all that is learned from it."""


class DistillLoss(Settings):
    """Who is listened to, and how loud."""

    temperature: float = Field(gt=0)
    """What logits are divided by before the student's are compared with the teacher's."""
    teacher_share: float = Field(ge=0, le=1)
    """Weight of the teacher's voice in the loss, 0 to 1; the rest is the label's."""


@dataclass(frozen=True)
class DistillData:
    """Texts of one split as the student sees them, with what is to be said of them and what each counts."""

    texts: Sequence[Any]
    teacher: npt.NDArray[np.float32]
    """Logits ``[n, labels]``."""
    labels: npt.NDArray[np.int64]
    """``UNLABELLED`` where there is none."""
    weights: npt.NDArray[np.float64]


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, distill_loss: DistillLoss) -> Tensor:
    """Sum of both losses by their shares, for logits ``[n, labels]`` and what each message counts, ``[n]``.

    The square keeps gradients alike at any temperature.
    """
    hard = nn.functional.cross_entropy(student, labels, reduction="none", ignore_index=UNLABELLED)
    divergences = nn.functional.kl_div(
        log_softmax(student / distill_loss.temperature, dim=1),
        log_softmax(teacher / distill_loss.temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    share = distill_loss.teacher_share
    each = (1 - share) * hard + share * distill_loss.temperature**2 * divergences.sum(dim=1)
    return (each * weights).mean()


def teacher_logits(paths: Paths, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """The teacher's logits of these messages, in this order. Raises StageError where one has none."""
    with np.load(paths.logits) as stored:
        row_of = {name: row for row, name in enumerate(stored["ids"])}
        try:
            logits: npt.NDArray[np.float32] = stored["logits"][[row_of[name] for name in ids]]
        except KeyError as error:
            raise StageError(f"{paths.logits.name}: the teacher never saw message {error}; run train again") from error
    return logits
