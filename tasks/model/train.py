"""Stage train: the teacher, the kind's large model, trained on the train split.

Inputs are encoded once. The learning rate warms up and decays linearly. Every
``evaluate_every`` epochs valid is scored; training keeps the best weights and stops early when they no longer improve. All
random numbers come from ``seed``, and a checkpoint is written at each evaluation, so a killed run resumes and ends with the
same weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tasks.files import atomic_write, read_json
from tasks.kinds import Teacher, model_part, settings_of
from tasks.lineage import sha256
from tasks.metrics import mean_one, ranking
from tasks.model.checkpoint import Checkpoint, TrainProgress
from tasks.model.device import has_fast_bfloat16, make_deterministic, pick_device
from tasks.model.schedule import schedule
from tasks.model.settings import Train
from tasks.stage import Paths, StageError, run
from tasks.tracking import Tracker, track


@dataclass(frozen=True)
class Data:
    """Inputs of train and valid as the teacher encodes them, with their labels and weights."""

    train: Sequence[Any]
    train_labels: npt.NDArray[np.int64]
    train_weights: npt.NDArray[np.float32]
    """Weight of each row in the loss; their mean is 1."""
    valid: Sequence[Any]
    valid_labels: npt.NDArray[np.int64]
    valid_weights: npt.NDArray[np.float64]


class Training:
    """One training run of the teacher: the network, its optimizer and its progress."""

    def __init__(self, settings: Train, teacher: Teacher, data: Data, device: torch.device, checkpoint: Checkpoint) -> None:
        self.settings, self.data, self.device, self.checkpoint = settings, data, device, checkpoint
        self.teacher = teacher
        self.model: nn.Module = teacher.network.to(device)
        fast = has_fast_bfloat16(device)
        self.bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and fast)
        self.batches_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        steps = math.ceil(self.batches_per_epoch / settings.accumulate) * settings.epochs
        self.optimizer = torch.optim.AdamW(
            teacher.parameter_groups(settings), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule(steps, settings.warmup_share))
        self.progress = TrainProgress()
        self.best_weights: dict[str, Tensor] = {}

    def fit(self, tracker: Tracker | None) -> None:
        """Train to the end, resuming from the checkpoint if there is one; then load the best weights."""
        self._resume()
        if tracker:  # a resumed run is a new run in MLflow: log the whole curve
            for entry in self.progress.history:
                tracker.metrics({name: value for name, value in entry.items() if name != "batch"}, step=int(entry["batch"]))
        self.model.train()
        evaluation_interval = max(1, round(self.batches_per_epoch * self.settings.evaluate_every))
        total = self.batches_per_epoch * self.settings.epochs
        batches_done = (
            self.progress.epoch * self.batches_per_epoch + self.progress.batch if not self.progress.finished else total
        )
        with tqdm(total=total, initial=batches_done, desc="train", unit=" batches", mininterval=1) as bar:
            for number, rows, tensors in self._remaining_batches():
                loss = self._train_batch(rows, tensors, last=(number + 1) % self.batches_per_epoch == 0)
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", valid=f"{max(self.progress.best, 0):.4f}", refresh=False)
                self.progress.epoch, self.progress.batch = divmod(number + 1, self.batches_per_epoch)
                if (number + 1) % evaluation_interval == 0 or number + 1 == total:
                    self._evaluate(number + 1, loss, tracker)
                    if self.progress.looks_without_better >= self.settings.patience:
                        break
        self.progress.epoch = -1
        self._save()
        self.model.load_state_dict(self.best_weights)
        self.model.eval()

    def _remaining_batches(self) -> Iterator[tuple[int, list[int], tuple[Tensor, ...]]]:
        """(number, rows, tensors) of every batch still to be trained on."""
        if self.progress.finished or self.progress.looks_without_better >= self.settings.patience:
            return
        start = self.progress.batch
        for epoch in range(self.progress.epoch, self.settings.epochs):
            batches = self.teacher.epoch(self.data.train, self.settings.batch_size, self.settings.seed, epoch, start)
            for number, (rows, tensors) in enumerate(batches, start=epoch * self.batches_per_epoch + start):
                yield number, rows, tensors
            start = 0

    def _train_batch(self, rows: list[int], tensors: tuple[Tensor, ...], last: bool) -> float:
        """Accumulate one batch's gradients; step after ``accumulate`` batches, or where the epoch ends."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(*(tensor.to(self.device) for tensor in tensors))
        labels, weights = (
            torch.from_numpy(values[rows]).to(self.device) for values in (self.data.train_labels, self.data.train_weights)
        )
        loss = (nn.functional.cross_entropy(logits.float(), labels, reduction="none") * weights).mean()
        (loss / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
        if (self.progress.batch + 1) % self.settings.accumulate == 0 or last:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise StageError(f"the loss is {value}: lower train.learning_rate = {self.settings.learning_rate}")
        return value

    def _evaluate(self, batches: int, loss: float, tracker: Tracker | None) -> None:
        """Score valid, keep the weights if they are the best so far, write the checkpoint."""
        self.model.eval()
        logits = self.teacher.predict(self.data.valid, self.device, self.bfloat16)
        self.model.train()
        score = ranking(logits, self.data.valid_labels, weights=self.data.valid_weights)["pr_auc"]
        valid_loss = float(nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(self.data.valid_labels)))
        metrics = {
            "train_loss": loss,
            "valid_loss": valid_loss,
            "valid_pr_auc": score,
            "lr": float(self.scheduler.get_last_lr()[0]),
        }
        self.progress.history.append({"batch": batches, **metrics})
        if tracker:
            tracker.metrics(metrics, step=batches)
        if score > self.progress.best:
            self.progress.best, self.progress.looks_without_better = score, 0
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        else:
            self.progress.looks_without_better += 1
        self._save()

    def _save(self) -> None:
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.checkpoint.save(
            model=self.model.state_dict(),
            gradients=gradients,
            best=self.best_weights,
            optimizer=self.optimizer.state_dict(),
            scheduler={"last_epoch": self.scheduler.last_epoch},
            progress=vars(self.progress),
            rng=torch.get_rng_state(),
            gpu_chance=torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        )

    def _resume(self) -> None:
        state = self.checkpoint.load()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        for name, parameter in self.model.named_parameters():
            parameter.grad = state["gradients"].get(name)
        self.best_weights = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.last_epoch = state["scheduler"]["last_epoch"]
        self.progress = TrainProgress(**state["progress"])
        torch.set_rng_state(state["rng"])
        if state["gpu_chance"]:
            torch.cuda.set_rng_state_all(state["gpu_chance"])
        print(f"train: goes on from batch {self.progress.history[-1]['batch']:.0f}")


def enough_epochs(settings: Train, rows: int, labels: int) -> int:
    """The epochs in which ``rows`` are learned: many labels, each with few rows, need more of them."""
    wanted = settings.steps_per_label * labels
    return max(settings.epochs, math.ceil(wanted / math.ceil(rows / settings.batch_size)))


def train(settings: Train, paths: Paths) -> None:
    """Train the teacher on the train split, choose its best weights on valid, and score every row once."""
    rows = pd.read_parquet(paths.prepared)
    schema = read_json(paths.schema)
    if settings.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    device = pick_device(settings.device)
    make_deterministic(settings.seed, settings.threads)
    teacher = model_part(schema["kind"]).new_teacher(settings, len(schema["labels"]), schema)
    splits = {split: rows[rows.split == split] for split in ("train", "valid")}
    epochs = enough_epochs(settings, len(splits["train"]), len(schema["labels"]))
    if epochs > settings.epochs:
        print(f"train: {epochs} epochs, as {len(schema['labels'])} labels want {settings.steps_per_label} batches each")
        settings = settings.model_copy(update={"epochs": epochs})
    everything = teacher.encode(list(rows.input))
    encoded = {split: [everything[row] for row in np.flatnonzero(rows.split == split).tolist()] for split in splits}
    data = Data(
        encoded["train"],
        splits["train"].label_id.to_numpy(),
        mean_one(splits["train"].weight.to_numpy()),
        encoded["valid"],
        splits["valid"].label_id.to_numpy(),
        splits["valid"].weight.to_numpy(),
    )
    identity = f"{settings.model_dump_json()} {sha256(paths.prepared)} {device} {torch.get_num_threads()} {torch.__version__}"
    checkpoint = Checkpoint(paths.checkpoints, identity)
    with track("train", settings, paths) as tracker:
        tracker.data(paths.prepared, pd.concat(splits.values()), "training")
        training = Training(settings, teacher, data, device, checkpoint)
        training.fit(tracker)
        logits = teacher.predict(everything, device, training.bfloat16, desc="scoring")
        history = pd.DataFrame(training.progress.history)
        with atomic_write(paths.report("train.csv")) as temporary:
            history.to_csv(temporary, index=False)
        with atomic_write(paths.logits) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=rows.id.to_numpy(dtype=str), logits=logits)
        with atomic_write(paths.model("teacher")) as temporary:
            temporary.mkdir()
            teacher.network.cpu()
            teacher.save(temporary)
        tracker.file(paths.report("train.csv"))
        tracker.headline({"teacher_valid_pr_auc": training.progress.best})
    checkpoint.remove()
    print(f"the teacher's PR-AUC on valid is {training.progress.best:.4f}")


if __name__ == "__main__":
    run(train, settings_of("train"))
