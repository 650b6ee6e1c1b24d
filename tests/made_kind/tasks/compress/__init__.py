"""Sequence classification, its compress part: one family, the teacher's network in small (``tasks.kinds.CompressPart``)."""

# ruff: noqa: I001 - its own packages are not where it imports them from, so ruff takes them for somebody else's

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.kinds.sequence_classification.packing import padded
from tasks.compress import settings
from tasks.compress.distillation import DistillData
from tasks.compress.int8 import write_int8
from tasks.compress.settings import Prune
from tasks.compress.sgd import History, Sgd, Watch, train_sgd
from tasks.kinds.sequence_classification.model import Network, SequenceTeacher
from tasks.model.checkpoint import Checkpoint
from tasks.stage import Settings, StageError

__all__ = ["Prune"]


class Small(Settings):
    width: int
    hidden: int
    sgd: Sgd


class Distill(settings.Distill):
    family: Literal["small"]
    small: Small


class Quantize(settings.Quantize):
    method: Literal["dynamic"]


class SequenceStudent(SequenceTeacher):
    """``tasks.compress.student.Student``: what a teacher is, but for these."""

    def forward(self, encoded: Sequence[bytes]) -> Tensor:
        logits: Tensor = self.network(torch.from_numpy(padded(encoded)))
        return logits

    def outputs(self, encoded: Sequence[bytes]) -> npt.NDArray[np.float32]:
        return self.predict(encoded)

    def save(self, folder: Path, opset: int) -> None:  # type: ignore[override]
        self.export(folder, opset)


def families(settings: Distill, labels: int) -> list[Distill]:
    return [settings]


def context(inputs: Sequence[bytes], settings: Distill) -> None:
    """A student needs to know nothing of all inputs."""


def saved_context(folder: Path) -> None:
    """As ``context``."""


def new_student(settings: Distill, labels: int, context: None, teacher: Path) -> SequenceStudent:
    return SequenceStudent(Network(settings.small.width, settings.small.hidden, labels))


def learn(
    student: SequenceStudent,
    train: DistillData,
    valid: DistillData,
    settings: Distill,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
    epochs: int | None = None,
) -> History:
    sgd = settings.small.sgd if epochs is None else settings.small.sgd.model_copy(update={"epochs": epochs})
    return train_sgd(student, train, valid, sgd, settings, settings.seed, checkpoint, watch)


def forecast(student: SequenceStudent, train: DistillData, settings: Distill) -> float:
    return 1e-4 * len(train.inputs) * settings.small.sgd.epochs


def extra_inputs(inputs: Sequence[bytes], settings: Distill, teacher: Path) -> list[bytes]:
    return []


def remove_share(student: SequenceStudent, part: str, share: float, parent: Any) -> SequenceStudent:
    """The student without the ``hidden`` units that weigh least. Raises StageError for any other part."""
    if part != "hidden":
        raise StageError(f"{parent.where(part, share)}: a student has the parts: hidden")
    old = student.network
    weight = old.inner.weight.norm(dim=1) * old.head.weight.norm(dim=0)
    keep = weight.argsort(descending=True)[: max(1, round((1 - share) * len(weight)))].sort().values
    new = Network(**old.plan | {"hidden": len(keep)})
    weights = old.state_dict()
    weights |= {name: weights[name][keep] for name in ("inner.weight", "inner.bias")}
    new.load_state_dict(weights | {"head.weight": weights["head.weight"][:, keep]})
    return SequenceStudent(new)


def quantize_student(parent: Path, folder: Path, settings: Quantize, inputs: Sequence[bytes]) -> None:
    shutil.copyfile(parent / "variant.json", folder / "variant.json")
    write_int8(parent / "model.onnx", folder / "model.onnx", settings.operators, settings.per_channel)
