"""A student learns by stochastic gradient descent, an epoch at a time; a run that was killed goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from tqdm import tqdm

from tasks.compress.distillation import DistillData, DistillLoss, distillation_loss
from tasks.compress.student import Student
from tasks.metrics import mean_one, ranking
from tasks.model.batches import schedule
from tasks.model.checkpoint import Checkpoint
from tasks.stage import Settings

History = list[dict[str, float]]
"""An entry an epoch: epoch, train_loss, valid_pr_auc."""
Watch = Callable[[int, float], None]
"""Told of each epoch: its number, and the PR-AUC on valid. What it raises ends the training."""


WARMUP = 0.1


class Sgd(Settings):
    """Adam, its learning rate rising over the first tenth of all steps and falling from there, as the teacher's does.

    Of a hashed table only the rows that a batch looks up take a step, and weights do not decay (lazy Adam, torch's
    SparseAdam): a step costs as much as its texts are long, however large the table is. All else learns by AdamW.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """The highest."""
    weight_decay: float


def valid_pr_auc(student: Student, valid: DistillData) -> float:
    """PR-AUC of what the pupil says of valid now."""
    return ranking(student.outputs(valid.texts), valid.labels, weights=valid.weights)["pr_auc"]


def hashed_tables(network: torch.nn.Module) -> list[torch.nn.Embedding]:
    """The tables of which a text looks up few rows; none in a transformer, whose optimizer's steps are few and all dense."""
    table = getattr(network, "embedding", None)
    return [table] if isinstance(table, torch.nn.Embedding) else []


class TrainState:
    """Where a training stands: network, optimizer, learning rate, chance and history, which are kept and taken up together."""

    def __init__(self, network: torch.nn.Module, settings: Sgd, steps: int) -> None:
        """``steps`` batches an epoch."""
        rate, decay = settings.learning_rate, settings.weight_decay
        self.network = network
        tables = [table.weight for table in hashed_tables(network)]
        others = [weights for weights in network.parameters() if all(weights is not table for table in tables)]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, weight_decay=decay)]
        self.optimizers += [torch.optim.SparseAdam(tables, lr=rate)] if tables else []
        rates = schedule(steps * settings.epochs, WARMUP)
        self.cycles = [torch.optim.lr_scheduler.LambdaLR(optimizer, rates) for optimizer in self.optimizers]
        self.history: History = []

    def keep(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(
            network=self.network.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            cycle=self.cycles[0].last_epoch,
            rng=torch.get_rng_state(),
            history=self.history,
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where a killed run was, if one was."""
        if not (state := checkpoint.load()):
            return
        self.network.load_state_dict(state["network"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for cycle in self.cycles:
            cycle.last_epoch = state["cycle"]
        torch.set_rng_state(state["rng"])
        self.history = state["history"]
        print(f"goes on after epoch {len(self.history)}")

    def step(self, loss: torch.Tensor) -> float:
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, cycle in zip(self.optimizers, self.cycles, strict=True):
            optimizer.step()
            cycle.step()
            optimizer.zero_grad()
        return float(loss.detach())


def loss_of(
    student: Student, train: DistillData, weights: npt.NDArray[Any], distill_loss: DistillLoss, rows: npt.NDArray[np.int64]
) -> torch.Tensor:
    """The loss of these ``rows`` of train, what each counts by ``weights[n]``."""
    asked = student.ask([train.texts[row] for row in rows])
    teacher, labels, counts = (torch.from_numpy(part[rows]) for part in (train.teacher, train.labels, weights))
    return distillation_loss(asked, teacher, labels, counts, distill_loss)


def train_sgd(
    student: Student,
    train: DistillData,
    valid: DistillData,
    settings: Sgd,
    distill_loss: DistillLoss,
    seed: int,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> History:
    """Train the pupil's network in place over all epochs; its history."""
    weights = mean_one(train.weights)
    for table in hashed_tables(student.network):
        table.sparse = True  # of gradients
    steps = math.ceil(len(train.texts) / settings.batch_size)
    course = TrainState(student.network, settings, steps)
    if checkpoint:
        course.resume(checkpoint)

    done = len(course.history)
    for epoch in tqdm(
        range(done + 1, settings.epochs + 1), desc="student", unit=" epochs", initial=done, total=settings.epochs
    ):
        student.network.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(train.texts))
        losses = [course.step(loss_of(student, train, weights, distill_loss, rows)) for rows in np.array_split(order, steps)]
        pr_auc = valid_pr_auc(student, valid)
        course.history.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "valid_pr_auc": pr_auc})
        if checkpoint:
            course.keep(checkpoint)
        if watch:
            watch(epoch, pr_auc)
    student.network.eval()
    return course.history
