"""The families of students: the settings of each, how its network is built, and how it is trained."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from service.tokenizer import Tokenizer
from tasks.compress.distillation import DistillData, DistillLoss
from tasks.compress.embeddings import start_from_teacher
from tasks.compress.linear import Linear, fit_linear, seconds_of_pass
from tasks.compress.networks import Convolution, Network
from tasks.compress.sgd import History, Sgd, Watch, loss_of, train_sgd
from tasks.compress.student import Hashed, Student
from tasks.compress.transformer import ThinStudent
from tasks.model.checkpoint import Checkpoint
from tasks.stage import Settings


class Bag(Settings):
    bits: int | None = Field(ge=4, le=24)
    """In place of ``distill.bits``, since its rows are wide; None: use ``distill.bits``."""
    dimensions: int = Field(ge=1)
    hidden: int = Field(ge=0)
    """Width of the hidden layer; 0: none."""
    row_dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    """How the rows of words are initialised."""
    sgd: Sgd


class Cnn(Settings):
    words: int = Field(ge=1)
    """How many words and symbols of a text are read."""
    dimensions: int = Field(ge=1)
    kernel_sizes: list[int] = Field(min_length=1)
    """Widths of the filters, in words."""
    filters: int = Field(ge=1)
    """Filters per width."""
    dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    sgd: Sgd


class Transformer(Settings):
    layers: list[int] | None
    """Numbers of the teacher's layers to keep, from 0; None: the first and the last."""
    sgd: Sgd


class Auto(Settings):
    linear_labels: int = Field(ge=1)
    """With more labels the bag is tried in place of the linear student, whose table has a column per label."""
    margin: float = Field(ge=0)
    """Largest loss of PR-AUC on valid; beyond it the next family is tried."""


class Learning(DistillLoss):
    """What a student is made of and how it is trained: the block ``distill`` without its parity bounds."""

    family: Literal["auto", "linear", "bag", "cnn", "transformer"]
    """Which of the four blocks below is used; ``auto``: several in turn, in the order of ``families``."""
    auto: Auto
    linear: Linear
    bag: Bag
    cnn: Cnn
    transformer: Transformer
    bits: int = Field(ge=4, le=24)
    """Width of the feature hash: the table has 2**bits rows, shared by words, bigrams and character n-grams."""
    char_ngrams: list[int]
    """linear, bag: lengths of the character n-grams used as features; words and bigrams always are."""
    threads: int = Field(ge=1)
    seed: int = Field(ge=0)
    """Of all random numbers, and of the hash that decides which features share a row."""


def families(settings: Learning, labels: int) -> list[Learning]:
    """The settings of each student to try in turn, smallest first. A table with a column per label grows with the labels."""
    if settings.family != "auto":
        return [settings]
    first = "linear" if labels <= settings.auto.linear_labels else "bag"
    return [settings.model_copy(update={"family": family}) for family in (first, "cnn", "transformer")]


def use_threads(settings: Learning) -> None:
    """Set torch's threads: all cores for a transformer, ``settings.threads`` for the others, which gain from no more."""
    torch.set_num_threads(settings.threads if settings.family != "transformer" else os.cpu_count() or 1)


def salt_of(seed: int) -> int:
    """An odd 64-bit number for the tokenizer's hash."""
    return int(np.random.default_rng(seed).integers(2**63)) * 2 + 1


def make_student(settings: Learning, labels: int, known: npt.NDArray[np.bool_], teacher: Path) -> Student:
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
    settings: Learning,
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


def forecast(student: Student, train: DistillData, settings: Learning) -> float:
    """Seconds that ``learn`` will take, from the time of one batch, or of one pass over all texts for the linear student.

    The network and torch's random state are left unchanged.
    """
    if isinstance(student, Hashed) and settings.family == "linear":
        return settings.linear.max_iter * seconds_of_pass(student, train, settings)
    sgd: Sgd = getattr(settings, settings.family).sgd
    rng = torch.get_rng_state()
    rows = np.linspace(0, len(train.texts) - 1, min(sgd.batch_size, len(train.texts))).astype(np.int64)
    student.network.train()
    seconds = []
    for _ in range(2):  # the first also warms up
        start = time.perf_counter()
        loss_of(student, train, train.weights, settings, rows).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    student.network.zero_grad()
    torch.set_rng_state(rng)
    return seconds[-1] * sgd.epochs * len(train.texts) / len(rows)
