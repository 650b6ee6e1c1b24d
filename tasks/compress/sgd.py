"""Training of a student by mini-batch gradient descent with a checkpoint per epoch, from which a killed run resumes."""

from __future__ import annotations

import math
import time
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
from tasks.model.checkpoint import Checkpoint
from tasks.model.schedule import schedule
from tasks.stage import Settings

History = list[dict[str, float]]
"""An entry per epoch: epoch, train_loss, valid_pr_auc."""
Watch = Callable[[int, float], None]
"""Called after each epoch with its number and the PR-AUC on valid. An exception it raises ends the training."""


WARMUP = 0.1


class Sgd(Settings):
    """Adam with a learning rate that warms up over the first tenth of all steps, then decays linearly, as the teacher's does.

    Only the rows of a hashed table that a batch looks up are updated, without weight decay (lazy Adam, torch's SparseAdam):
    the cost of a step grows with its batch, not with the table. All other parameters use AdamW.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """The peak."""
    weight_decay: float


def valid_pr_auc(student: Student, valid: DistillData) -> float:
    """PR-AUC of the student's current logits on valid."""
    return ranking(student.outputs(valid.inputs), valid.labels, weights=valid.weights)["pr_auc"]


def hashed_tables(network: torch.nn.Module) -> list[torch.nn.Embedding]:
    """The embedding tables of which an input looks up few rows: those that the network names in ``sparse_tables``."""
    return [getattr(network, name) for name in getattr(network, "sparse_tables", ())]


class TrainState:
    """State of a training run: network, optimizer, learning rate, random state and history, saved and restored together."""

    def __init__(self, network: torch.nn.Module, settings: Sgd, steps: int) -> None:
        """``steps``: batches per epoch."""
        rate, decay = settings.learning_rate, settings.weight_decay
        self.network = network
        tables = [table.weight for table in hashed_tables(network)]
        others = [weights for weights in network.parameters() if all(weights is not table for table in tables)]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, weight_decay=decay)]
        self.optimizers += [torch.optim.SparseAdam(tables, lr=rate)] if tables else []
        rates = schedule(steps * settings.epochs, WARMUP)
        self.schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, rates) for optimizer in self.optimizers]
        self.history: History = []

    def save(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(
            network=self.network.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            cycle=self.schedulers[0].last_epoch,
            rng=torch.get_rng_state(),
            history=self.history,
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a killed run, if there is one."""
        if not (state := checkpoint.load()):
            return
        self.network.load_state_dict(state["network"])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        for scheduler in self.schedulers:
            scheduler.last_epoch = state["cycle"]
        torch.set_rng_state(state["rng"])
        self.history = state["history"]
        print(f"goes on after epoch {len(self.history)}")

    def step(self, loss: torch.Tensor) -> float:
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return float(loss.detach())


def loss_of(
    student: Student, train: DistillData, weights: npt.NDArray[Any], distill_loss: DistillLoss, rows: npt.NDArray[np.int64]
) -> torch.Tensor:
    """The loss on these ``rows`` of train, weighted by ``weights[n]``."""
    student_logits = student.forward([train.inputs[row] for row in rows])
    teacher, labels, row_weights = (torch.from_numpy(part[rows]) for part in (train.teacher, train.labels, weights))
    return distillation_loss(student_logits, teacher, labels, row_weights, distill_loss)


def forecast_sgd(student: Student, train: DistillData, settings: Sgd, distill_loss: DistillLoss) -> float:
    """Seconds that ``train_sgd`` will take, from the time of one batch; network and torch's random state stay as they are."""
    rng = torch.get_rng_state()
    # Batch normalisation counts the batches that it has seen.
    before = {name: tensor.clone() for name, tensor in student.network.state_dict().items()}
    rows = np.linspace(0, len(train.inputs) - 1, min(settings.batch_size, len(train.inputs))).astype(np.int64)
    student.network.train()
    seconds = []
    for _ in range(2):  # the first also warms up
        start = time.perf_counter()
        loss_of(student, train, train.weights, distill_loss, rows).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    student.network.zero_grad()
    student.network.load_state_dict(before)
    torch.set_rng_state(rng)
    return seconds[-1] * settings.epochs * len(train.inputs) / len(rows)


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
    """Train the student's network in place over all epochs; returns the history."""
    weights = mean_one(train.weights)
    for table in hashed_tables(student.network):
        table.sparse = True  # sparse gradients
    steps = math.ceil(len(train.inputs) / settings.batch_size)
    state = TrainState(student.network, settings, steps)
    if checkpoint:
        state.resume(checkpoint)

    epochs_done = len(state.history)
    for epoch in tqdm(
        range(epochs_done + 1, settings.epochs + 1), desc="student", unit=" epochs", initial=epochs_done, total=settings.epochs
    ):
        student.network.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(train.inputs))
        losses = [state.step(loss_of(student, train, weights, distill_loss, rows)) for rows in np.array_split(order, steps)]
        pr_auc = valid_pr_auc(student, valid)
        state.history.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "valid_pr_auc": pr_auc})
        if checkpoint:
            state.save(checkpoint)
        if watch:
            watch(epoch, pr_auc)
    student.network.eval()
    return state.history
