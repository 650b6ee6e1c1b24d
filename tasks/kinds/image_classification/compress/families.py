"""The families of students: the settings of each, how its network is built, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.kinds.image_classification.images import Shape
from tasks.compress.distillation import DistillData
from tasks.compress.sgd import History, Watch, forecast_sgd, train_sgd
from tasks.files import read_json
from tasks.kinds.image_classification.compress.network import Convolutional
from tasks.kinds.image_classification.compress.settings import Distill
from tasks.kinds.image_classification.compress.student import ImageStudent
from tasks.kinds.image_classification.model.augmentation import augmented
from tasks.model.checkpoint import Checkpoint
from tasks.stage import StageError


def families(settings: Distill, labels: int) -> list[Distill]:
    """The settings of each student to try in turn, smallest first."""
    if settings.family != "auto":
        return [settings]
    return [settings.model_copy(update={"family": family}) for family in ("dscnn", "cnn")]


def context(inputs: Sequence[bytes], settings: Distill) -> None:
    """Students need to know nothing of all images."""


def saved_context(folder: Path) -> None:
    """As ``context``."""


def new_student(settings: Distill, labels: int, context: None, teacher: Path) -> ImageStudent:
    """An untrained student for images of the teacher's shape; torch was seeded. Raises StageError."""
    cnn = settings.cnn_of_family
    if len(cnn.widths) != len(cnn.strides):
        raise StageError(f"distill.{settings.family}.strides = {cnn.strides}: one for each of widths = {cnn.widths}")
    shape = Shape.of(read_json(teacher / "variant.json")["image"])
    separable = settings.family == "dscnn"
    network = Convolutional(shape.channels, labels, cnn.kernel, cnn.widths, cnn.strides, separable, cnn.dropout)
    return ImageStudent(network, shape, settings.mirror)


def learn(
    student: ImageStudent,
    train: DistillData,
    valid: DistillData,
    settings: Distill,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
    epochs: int | None = None,
) -> History:
    """Train the student in place from its current weights; ``epochs`` overrides the settings."""
    sgd = settings.cnn_of_family.sgd
    if epochs is not None:
        sgd = sgd.model_copy(update={"epochs": epochs})
    return train_sgd(student, train, valid, sgd, settings, settings.seed, checkpoint, watch)


def forecast(student: ImageStudent, train: DistillData, settings: Distill) -> float:
    """Seconds that ``learn`` will take."""
    return forecast_sgd(student, train, settings.cnn_of_family.sgd, settings)


def extra_inputs(inputs: Sequence[bytes], settings: Distill, teacher: Path) -> list[bytes]:
    """Changed copies of the images, ``settings.copies.count`` of each."""
    if not inputs or not settings.copies.count:
        return []
    shape = Shape.of(read_json(teacher / "variant.json")["image"])
    pixels = np.stack([shape.array(image) for image in inputs])
    copies = []
    for number in range(settings.copies.count):
        rng = np.random.default_rng([settings.seed, number])
        copies += [image.tobytes() for image in augmented(pixels, settings.copies.augment, shape.mean, rng)]
    return copies
