"""A student learns by stochastic gradient descent, an epoch at a time; a run that was killed goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from tqdm import tqdm

from tasks.compress.lesson import Lesson, Voices, distillation_loss
from tasks.compress.pupil import Pupil
from tasks.metrics import mean_one, ranking
from tasks.model.batches import schedule
from tasks.model.checkpoint import Checkpoint
from tasks.stage import Settings

History = list[dict[str, float]]
"""An entry an epoch: epoch, train_loss, valid_pr_auc."""
Watch = Callable[[int, float], None]
"""Told of each epoch: its number, and the PR-AUC on valid. What it raises ends the training."""


WARMUP = 0.1


class Descent(Settings):
    """AdamW, its learning rate rising over the first tenth of all steps and falling from there, as the teacher's does."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    """The highest."""
    weight_decay: float


def valid_pr_auc(pupil: Pupil, valid: Lesson) -> float:
    """PR-AUC of what the pupil says of valid now."""
    return ranking(pupil.outputs(valid.texts), valid.labels, weights=valid.weights)["pr_auc"]


class Course:
    """Where a training stands: network, optimizer, learning rate, chance and history, which are kept and taken up together."""

    def __init__(self, network: torch.nn.Module, settings: Descent, steps: int) -> None:
        """``steps`` batches an epoch."""
        rate, decay = settings.learning_rate, settings.weight_decay
        self.network = network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
        self.cycle = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule(steps * settings.epochs, WARMUP))
        self.history: History = []

    def keep(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            cycle=self.cycle.last_epoch,
            chance=torch.get_rng_state(),
            history=self.history,
        )

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go on where a killed run was, if one was."""
        if not (state := checkpoint.load()):
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.cycle.last_epoch = state["cycle"]
        torch.set_rng_state(state["chance"])
        self.history = state["history"]
        print(f"goes on after epoch {len(self.history)}")

    def step(self, loss: torch.Tensor) -> float:
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.cycle.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


def descend(
    pupil: Pupil,
    train: Lesson,
    valid: Lesson,
    settings: Descent,
    voices: Voices,
    seed: int,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
) -> History:
    """Train the pupil's network in place over all epochs; its history."""
    weights = mean_one(train.weights)
    steps = math.ceil(len(train.texts) / settings.batch_size)
    course = Course(pupil.network, settings, steps)
    if checkpoint:
        course.take_up(checkpoint)

    def loss_of(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        asked = pupil.ask([train.texts[row] for row in rows])
        teacher, labels, counts = (torch.from_numpy(part[rows]) for part in (train.teacher, train.labels, weights))
        return distillation_loss(asked, teacher, labels, counts, voices)

    done = len(course.history)
    for epoch in tqdm(
        range(done + 1, settings.epochs + 1), desc="student", unit=" epochs", initial=done, total=settings.epochs
    ):
        pupil.network.train()
        order = np.random.default_rng([seed, epoch]).permutation(len(train.texts))
        losses = [course.step(loss_of(rows)) for rows in np.array_split(order, steps)]
        pr_auc = valid_pr_auc(pupil, valid)
        course.history.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "valid_pr_auc": pr_auc})
        if checkpoint:
            course.keep(checkpoint)
        if watch:
            watch(epoch, pr_auc)
    pupil.network.eval()
    return course.history
