"""The families of students: what ``distill.family`` may say, what each is made of, and how it learns."""

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
    """In place of ``distill.bits``, for its rows are wide; None: those."""
    dimensions: int = Field(ge=1)
    hidden: int = Field(ge=0)
    """Width of the hidden layer; 0: none."""
    row_dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    """What the rows of words start as."""
    sgd: Sgd


class Cnn(Settings):
    words: int = Field(ge=1)
    """How many words and symbols of a text are read."""
    dimensions: int = Field(ge=1)
    kernel_sizes: list[int] = Field(min_length=1)
    """Words that a filter looks at, for each kind of filter."""
    filters: int = Field(ge=1)
    """Filters of each width."""
    dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    sgd: Sgd


class Transformer(Settings):
    layers: list[int] | None
    """Numbers of the teacher's layers that stay, from 0; None: the first and the last."""
    sgd: Sgd


class Auto(Settings):
    linear_labels: int = Field(ge=1)
    """With more labels the bag takes the place of the linear student, whose table is as wide as there are labels."""
    margin: float = Field(ge=0)
    """A student that loses more PR-AUC on valid than this is followed by one of the next family."""


class Learning(DistillLoss):
    """What a student is, and how it learns: the block ``distill`` but for what it is judged by."""

    family: Literal["auto", "linear", "bag", "cnn", "transformer"]
    """Which of the four blocks below is read; ``auto``: one after the other, as ``families`` orders them."""
    auto: Auto
    linear: Linear
    bag: Bag
    cnn: Cnn
    transformer: Transformer
    bits: int = Field(ge=4, le=24)
    """Width of a feature's hash: the table has two to this many rows, which words, pairs and runs of characters share."""
    char_ngrams: list[int]
    """linear, bag: lengths of the runs of characters that are features; words and pairs of neighbours always are."""
    threads: int = Field(ge=1)
    seed: int = Field(ge=0)
    """Of all chance, and of the draw which features share a row."""


def families(settings: Learning, labels: int) -> list[Learning]:
    """The settings of each student to try in turn: the smallest first. A table of rows by labels is not small for long."""
    if settings.family != "auto":
        return [settings]
    first = "linear" if labels <= settings.auto.linear_labels else "bag"
    return [settings.model_copy(update={"family": family}) for family in (first, "cnn", "transformer")]


def use_threads(settings: Learning) -> None:
    """Let torch have as many threads as the family gains from: a transformer all, the others what is asked for."""
    torch.set_num_threads(settings.threads if settings.family != "transformer" else os.cpu_count() or 1)


def salt_of(seed: int) -> int:
    """An odd number of 64 bits, for the tokenizer."""
    return int(np.random.default_rng(seed).integers(2**63)) * 2 + 1


def make_student(settings: Learning, labels: int, known: npt.NDArray[np.bool_], teacher: Path) -> Student:
    """A student that has learned nothing yet; torch's chance must have been seeded. Raises StageError."""
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
    """The family's own way to learn, from where the pupil stands (the linear one anew); ``epochs`` in place of its own.

    ``watch`` is told of epochs of descent; the linear student is found before anybody could stop it.
    """
    if isinstance(student, Hashed) and settings.family == "linear":
        linear = settings.linear if epochs is None else settings.linear.model_copy(update={"max_iter": epochs})
        return fit_linear(student, train, valid, linear, settings)
    sgd: Sgd = getattr(settings, settings.family).sgd
    if epochs is not None:
        sgd = sgd.model_copy(update={"epochs": epochs})
    return train_sgd(student, train, valid, sgd, settings, settings.seed, checkpoint, watch)


def forecast(student: Student, train: DistillData, settings: Learning) -> float:
    """Seconds that ``learn`` will take, by the time of a batch, or of one look at all texts where it is linear.

    Neither the network nor torch's chance are other for it.
    """
    if isinstance(student, Hashed) and settings.family == "linear":
        return settings.linear.max_iter * seconds_of_pass(student, train, settings)
    sgd: Sgd = getattr(settings, settings.family).sgd
    rng = torch.get_rng_state()
    rows = np.linspace(0, len(train.texts) - 1, min(sgd.batch_size, len(train.texts))).astype(np.int64)
    student.network.train()
    taken = []
    for _ in range(2):  # the first also warms up
        begin = time.perf_counter()
        loss_of(student, train, train.weights, settings, rows).backward()  # type: ignore[no-untyped-call]
        taken.append(time.perf_counter() - begin)
    student.network.zero_grad()
    torch.set_rng_state(rng)
    return taken[-1] * sgd.epochs * len(train.texts) / len(rows)
