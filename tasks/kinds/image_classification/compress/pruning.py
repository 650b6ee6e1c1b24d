"""Removal of whole filters: the network becomes narrower, and its file smaller and faster, on any machine.

How much a filter matters is measured on the loss: the square of the change that removing it would make, to first order
(Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tasks.compress.distillation import DistillData, DistillLoss
from tasks.compress.sgd import loss_of
from tasks.kinds.image_classification.compress.student import BATCH, ImageStudent
from tasks.stage import StageError


def remove_share(student: ImageStudent, part: str, share: float, parent: Any) -> ImageStudent:
    """The student without this share of its ``filters``. Raises StageError where that cannot be."""
    where = parent.where(part, share)
    if part != "filters":
        raise StageError(f"{where}: a convolutional student has the parts: filters")
    importances = filter_importances(student, parent.held_out(student), parent.settings)
    keep = [torch.from_numpy(kept) for kept in filters_to_keep(importances, share)]
    return ImageStudent(student.network.narrowed(keep), student.shape, student.mirror)


def filter_importances(student: ImageStudent, valid: DistillData, settings: DistillLoss) -> list[npt.NDArray[np.float64]]:
    """The importance of each filter of each width, ``[filters]``, over the images of ``valid``."""
    student.network.eval()
    normalisations = student.network.mixing()
    sums = [np.zeros(layer.num_features) for layer in normalisations]
    weights = np.asarray(valid.weights, dtype=np.float32)
    for start in range(0, len(valid.inputs), BATCH):
        rows = np.arange(start, min(start + BATCH, len(valid.inputs)))
        student.network.zero_grad()
        loss_of(student, valid, weights, settings, rows).backward()  # type: ignore[no-untyped-call]
        for total, layer in zip(sums, normalisations, strict=True):
            assert layer.weight.grad is not None
            assert layer.bias.grad is not None
            change = layer.weight * layer.weight.grad + layer.bias * layer.bias.grad
            total += change.detach().numpy().astype(np.float64) ** 2
    student.network.zero_grad()
    return sums


def filters_to_keep(importances: list[npt.NDArray[np.float64]], share: float) -> list[npt.NDArray[np.int64]]:
    """The filters of each width that stay when ``share`` of all is removed, the least important first; one at least.

    Importances of each width are scaled to L2 norm 1, as gradients differ in size between layers.
    """
    scaled = [values / max(float(np.linalg.norm(values)), 1e-30) for values in importances]
    best = [int(values.argmax()) for values in scaled]
    candidates = sorted(
        (float(value), width, number)
        for width, values in enumerate(scaled)
        for number, value in enumerate(values)
        if number != best[width]
    )
    removed = {(width, number) for _, width, number in candidates[: round(share * sum(map(len, scaled)))]}
    return [
        np.array([number for number in range(len(values)) if (width, number) not in removed], dtype=np.int64)
        for width, values in enumerate(scaled)
    ]
