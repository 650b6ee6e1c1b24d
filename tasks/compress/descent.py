"""A student learns by stochastic gradient descent, an epoch at a time; a run that was killed goes on where it was."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
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
    texts, weights = train.texts, mean_one(train.weights)
    steps = math.ceil(len(texts) / settings.batch_size)
    network = pupil.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(steps * settings.epochs, WARMUP))
    history: History = []
    if checkpoint and (state := checkpoint.load()):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        cycle.last_epoch = state["cycle"]
        torch.set_rng_state(state["chance"])
        history = state["history"]
        print(f"goes on after epoch {len(history)}")
    epochs = range(len(history) + 1, settings.epochs + 1)
    for epoch in tqdm(epochs, desc="student", unit=" epochs", initial=len(history), total=settings.epochs):
        network.train()
        losses = []
        for batch in np.array_split(np.random.default_rng([seed, epoch]).permutation(len(texts)), steps):
            loss = distillation_loss(
                pupil.ask([texts[row] for row in batch]),
                torch.from_numpy(train.teacher[batch]),
                torch.from_numpy(train.labels[batch]),
                torch.from_numpy(weights[batch]),
                voices,
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        history.append({"epoch": epoch, "train_loss": float(np.mean(losses)), "valid_pr_auc": valid_pr_auc(pupil, valid)})
        if checkpoint:
            checkpoint.save(
                network=network.state_dict(),
                optimizer=optimizer.state_dict(),
                cycle=cycle.last_epoch,
                chance=torch.get_rng_state(),
                history=history,
            )
        if watch:
            watch(epoch, history[-1]["valid_pr_auc"])
    network.eval()
    return history
