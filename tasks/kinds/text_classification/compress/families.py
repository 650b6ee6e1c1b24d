"""The families of students: in which order they are tried, how each is built, and how it is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.kinds.text_classification.tokenizer import Tokenizer
from tasks.compress.distillation import DistillData
from tasks.compress.sgd import History, Sgd, Watch, forecast_sgd, train_sgd
from tasks.compress.student import Student
from tasks.kinds.text_classification.compress.embeddings import start_from_teacher
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.linear import fit_linear, seconds_of_pass
from tasks.kinds.text_classification.compress.networks import Convolution, Network
from tasks.kinds.text_classification.compress.settings import Distill
from tasks.kinds.text_classification.compress.transformer import ThinStudent
from tasks.model.checkpoint import Checkpoint


def families(settings: Distill, labels: int) -> list[Distill]:
    """The settings of each student to try in turn, smallest first. A table with a column per label grows with the labels."""
    if settings.family != "auto":
        return [settings]
    first = "linear" if labels <= settings.auto.linear_labels else "bag"
    return [settings.model_copy(update={"family": family}) for family in (first, "cnn", "transformer")]


def salt_of(seed: int) -> int:
    """An odd 64-bit number for the tokenizer's hash."""
    return int(np.random.default_rng(seed).integers(2**63)) * 2 + 1


def new_student(settings: Distill, labels: int, known: npt.NDArray[np.bool_], teacher: Path) -> Student:
    """An untrained student; torch must have been seeded before. Raises StageError."""
    if settings.family == "transformer":
        return ThinStudent(teacher, settings.transformer.layers, known)
    words = settings.cnn.words if settings.family == "cnn" else 0
    bits = settings.bag.bits if settings.family == "bag" and settings.bag.bits else settings.bits
    tokenizer = Tokenizer(settings.char_ngrams, bits, known, salt_of(settings.seed), words)
    if settings.family == "linear":
        return Hashed(Network(tokenizer.rows, labels, 0, labels, 0.0), tokenizer)
    network: Network | Convolution
    if settings.family == "bag":
        bag = settings.bag
        network = Network(tokenizer.rows, bag.dimensions, bag.hidden, labels, bag.row_dropout)
    else:
        cnn = settings.cnn
        network = Convolution(tokenizer.rows, cnn.dimensions, cnn.kernel_sizes, cnn.filters, labels, cnn.dropout)
    if (settings.bag if settings.family == "bag" else settings.cnn).embeddings == "teacher":
        start_from_teacher(network.embedding, tokenizer, teacher)
    return Hashed(network, tokenizer)


def learn(
    student: Student,
    train: DistillData,
    valid: DistillData,
    settings: Distill,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
    epochs: int | None = None,
) -> History:
    """Train the student as its family does, from its current weights (the linear one from zero).

    ``epochs`` overrides the settings. ``watch`` is called after each epoch of gradient descent; it does not apply to the
    linear student, which is solved too fast to be stopped.
    """
    if isinstance(student, Hashed) and settings.family == "linear":
        linear = settings.linear if epochs is None else settings.linear.model_copy(update={"max_iter": epochs})
        return fit_linear(student, train, valid, linear, settings)
    sgd: Sgd = getattr(settings, settings.family).sgd
    if epochs is not None:
        sgd = sgd.model_copy(update={"epochs": epochs})
    return train_sgd(student, train, valid, sgd, settings, settings.seed, checkpoint, watch)


def forecast(student: Student, train: DistillData, settings: Distill) -> float:
    """Seconds that ``learn`` will take; for the linear student, from the time of one pass over all texts."""
    if isinstance(student, Hashed) and settings.family == "linear":
        return settings.linear.max_iter * seconds_of_pass(student, train, settings)
    return forecast_sgd(student, train, getattr(settings, settings.family).sgd, settings)
