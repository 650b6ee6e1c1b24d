"""Stage train: the teacher, a large pre-trained transformer fine-tuned on the train split.

Texts are tokenized once, and batched by similar length. The learning rate warms up and decays linearly. Every
``evaluate_every`` epochs valid is scored; training keeps the best weights and stops early when they no longer improve. All
random numbers come from ``seed``, and a checkpoint is written at each evaluation, so a killed run resumes and ends with the
same weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from service.token_windows import TokenWindows, collate, tokenize
from tasks.files import atomic_write, read_json
from tasks.lineage import sha256
from tasks.metrics import mean_one, ranking
from tasks.model.batches import Data, epoch_batches, epoch_windows, schedule
from tasks.model.checkpoint import Checkpoint, TrainProgress
from tasks.model.teacher import Teacher, freeze, has_fast_bfloat16, load_encoder, predict, save_teacher
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import Tracker, track


class Train(Settings):
    model: str
    """A folder that transformers loads, an installed package with MODEL_DIR, or a name in the hub's local cache."""
    window_tokens: int = Field(ge=8)
    """Longest window, special tokens included."""
    windows: int = Field(ge=1)
    """Most windows per text; training uses one of them per epoch, scoring uses all."""
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    """Batches per optimizer step: their gradients are accumulated."""
    learning_rate: float = Field(gt=0)
    head_learning_rate: float = Field(gt=0)
    warmup_share: float = Field(ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0 to its peak."""
    weight_decay: float
    dropout: float = Field(ge=0, lt=1)
    frozen_layers: int | None = Field(ge=0)
    """The embeddings and this many of the lowest layers stay as pre-trained; null: everything is trained."""
    evaluate_every: float = Field(gt=0)
    """In epochs."""
    patience: int = Field(ge=1)
    """Evaluations on valid without a better macro PR-AUC before training stops."""
    precision: Literal["auto", "float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]
    threads: int | None
    """Threads of torch; null: one per core. The last bits of the weights depend on it."""
    seed: int


class Training:
    """One training run of the teacher: the network, its optimizer and its progress."""

    def __init__(self, settings: Train, model: Teacher, data: Data, device: torch.device, checkpoint: Checkpoint) -> None:
        self.settings, self.data, self.device, self.checkpoint = settings, data, device, checkpoint
        self.model = model.to(device)
        fast = has_fast_bfloat16(device)
        self.bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and fast)
        self.batches_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        steps = math.ceil(self.batches_per_epoch / settings.accumulate) * settings.epochs
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in model.encoder.parameters() if p.requires_grad], "lr": settings.learning_rate},
                {"params": model.head.parameters(), "lr": settings.head_learning_rate},
            ],
            weight_decay=settings.weight_decay,
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
            for number, windows, rows in self._remaining_batches():
                loss = self._train_batch(windows, rows, last=(number + 1) % self.batches_per_epoch == 0)
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

    def _remaining_batches(self) -> Iterator[tuple[int, list[list[int]], list[int]]]:
        """(number, windows, rows) of every batch still to be trained on."""
        if self.progress.finished or self.progress.looks_without_better >= self.settings.patience:
            return
        seed, start = self.settings.seed, self.progress.batch
        for epoch in range(self.progress.epoch, self.settings.epochs):
            windows = epoch_windows(self.data.train, seed, epoch)
            batches = epoch_batches([len(window) for window in windows], self.settings.batch_size, seed, epoch)
            for number in range(start, len(batches)):
                rows = batches[number]
                yield epoch * len(batches) + number, [windows[row] for row in rows], rows
            start = 0

    def _train_batch(self, windows: list[list[int]], rows: list[int], last: bool) -> float:
        """Accumulate one batch's gradients; step after ``accumulate`` batches, or where the epoch ends."""
        ids, mask = map(torch.from_numpy, collate(windows, self.data.padding))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.model(ids.to(self.device), mask.to(self.device))
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
        logits = predict(self.model, self.data.valid, self.data.padding, self.device, self.bfloat16)
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


def make_deterministic(seed: int, threads: int | None) -> None:
    """Seed torch and make it deterministic: with the same machine and threads, weights are equal bit for bit."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads or os.cpu_count() or 1)


def pick_device(device: str) -> torch.device:
    """``auto`` is the GPU if there is one. Raises StageError for a GPU that does not exist."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StageError("train.device = 'cuda': torch sees no GPU here; use auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def train(settings: Train, paths: Paths) -> None:
    """Fine-tune the teacher on the train split, choose its best weights on valid, and score every message once."""
    rows = pd.read_parquet(paths.prepared)
    labels = read_json(paths.schema)["labels"]
    if settings.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    device = pick_device(settings.device)
    make_deterministic(settings.seed, settings.threads)
    encoder, tokenizer = load_encoder(settings.model)
    model = Teacher(encoder, len(labels), settings.dropout)
    if settings.frozen_layers is not None:
        freeze(model, settings.frozen_layers)
    splits = {split: rows[rows.split == split] for split in ("train", "valid")}
    shape = TokenWindows(settings.window_tokens, settings.windows)
    all_tokens = tokenize(tokenizer, list(rows.text), shape)
    tokens = {split: [all_tokens[row] for row in np.flatnonzero(rows.split == split)] for split in splits}
    data = Data(
        tokens["train"],
        splits["train"].label_id.to_numpy(),
        mean_one(splits["train"].weight.to_numpy()),
        tokens["valid"],
        splits["valid"].label_id.to_numpy(),
        splits["valid"].weight.to_numpy(),
        tokenizer.pad_token_id or 0,
    )
    identity = f"{settings.model_dump_json()} {sha256(paths.prepared)} {device} {torch.get_num_threads()} {torch.__version__}"
    checkpoint = Checkpoint(paths.checkpoints, identity)
    with track("train", settings, paths) as tracker:
        tracker.data(paths.prepared, pd.concat(splits.values()), "training")
        training = Training(settings, model, data, device, checkpoint)
        training.fit(tracker)
        logits = predict(model, all_tokens, data.padding, device, training.bfloat16, desc="scoring")
        history = pd.DataFrame(training.progress.history)
        with atomic_write(paths.report("train.csv")) as temporary:
            history.to_csv(temporary, index=False)
        with atomic_write(paths.logits) as temporary, temporary.open("wb") as file:
            np.savez(file, ids=rows.id.to_numpy(dtype=str), logits=logits)
        with atomic_write(paths.model("teacher")) as temporary:
            temporary.mkdir()
            save_teacher(model.cpu(), tokenizer, temporary, shape)
        tracker.file(paths.report("train.csv"))
        tracker.headline({"teacher_valid_pr_auc": training.progress.best})
    checkpoint.remove()
    print(f"the teacher's PR-AUC on valid is {training.progress.best:.4f}")


if __name__ == "__main__":
    run(train, Train)
