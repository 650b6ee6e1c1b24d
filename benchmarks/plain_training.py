"""The rival of ``benchmarks.training``: the same teacher fine-tuned by ``transformers.Trainer``, as its guide shows it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, logging

from benchmarks.curves import Clock
from tasks.metrics import ranking
from tasks.model.teacher import has_fast_bfloat16, load_encoder, locate
from tasks.model.train import Train
from tasks.stage import StageError


@dataclass(frozen=True)
class Task:
    """What all trainings learn from, and how they are judged."""

    settings: Train
    train: pd.DataFrame
    valid: pd.DataFrame
    labels: int

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.train) // self.settings.batch_size)

    @property
    def look_every(self) -> int:
        """Batches between two looks at valid."""
        return max(1, round(self.batches_per_epoch * self.settings.evaluate_every))

    def pr_auc(self, logits: npt.NDArray[np.float32]) -> float:
        """On valid, as the stage train judges."""
        return ranking(logits, self.valid.label_id.to_numpy(), weights=self.valid.weight.to_numpy())["pr_auc"]


@dataclass(frozen=True)
class Plain:
    """One way to call Trainer."""

    tokens: int
    """Where a message is cut."""
    tuned: bool
    """With the two switches that Trainer has itself: bfloat16 where the processor gains, and batches of like lengths."""

    @property
    def switches(self) -> dict[str, Any]:
        if not self.tuned:
            return {}
        return {"bf16": has_fast_bfloat16(torch.device("cpu")), "train_sampling_strategy": "group_by_length"}


class TimedTrainer(Trainer):  # type: ignore[misc]
    """Trainer, the time of its looks at valid taken apart."""

    def __init__(self, clock: Clock, batches_per_epoch: int, **given: Any) -> None:
        super().__init__(**given)
        self.clock, self.batches_per_epoch = clock, batches_per_epoch

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        with self.clock.look():
            figures: dict[str, float] = super().evaluate(*given, **named)
        self.clock.note(round((self.state.epoch or 0) * self.batches_per_epoch), figures["eval_pr_auc"])
        return figures


def require_accelerate() -> None:
    """Raises StageError where Trainer's own requirement is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise StageError("transformers.Trainer needs accelerate: pip install -c constraints.txt -e '.[bench]'")


def longest_input(settings: Train) -> int:
    """Tokens of the longest message that the encoder can read at once, and that our windows together read."""
    encoder, tokenizer = load_encoder(settings.model)
    own = getattr(encoder.config, "max_position_embeddings", tokenizer.model_max_length)
    return int(min(own, tokenizer.model_max_length, settings.windows * settings.window_tokens))


def encoded(tokenizer: Any, part: pd.DataFrame, tokens: int) -> list[dict[str, Any]]:
    """Messages as Trainer takes them, cut to ``tokens``."""
    columns = tokenizer(list(part.text), truncation=True, max_length=tokens)
    names, labels = list(columns), part.label_id.tolist()
    rows = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) | {"labels": label} for row, label in zip(rows, labels, strict=True)]


def arguments(task: Task, plain: Plain, folder: str) -> TrainingArguments:
    """The settings of the stage train that Trainer knows too, with our cadence of looks; all else is its default."""
    settings = task.settings
    steps = -(-task.batches_per_epoch // settings.accumulate) * settings.epochs
    return TrainingArguments(
        output_dir=folder,
        seed=settings.seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, round(steps * settings.warmup_share)),
        weight_decay=settings.weight_decay,
        eval_strategy="steps",
        eval_steps=max(1, task.look_every // settings.accumulate),
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        **plain.switches,
    )


def fit_plain(task: Task, plain: Plain) -> Clock:
    """One run of Trainer from raw texts to its last batch; what it writes is thrown away."""
    settings = task.settings
    logging.set_verbosity_error()  # it warns of the new head, which is what we ask for
    torch.use_deterministic_algorithms(False)  # its default, whatever ran before
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    torch.manual_seed(settings.seed)
    _, tokenizer = load_encoder(settings.model)  # it says what is wrong where there is none
    model = AutoModelForSequenceClassification.from_pretrained(
        locate(settings.model), num_labels=task.labels, dtype=torch.float32
    )
    valid = encoded(tokenizer, task.valid, plain.tokens)
    with tempfile.TemporaryDirectory(prefix="restill-") as folder:
        clock = Clock()
        trainer = TimedTrainer(
            clock,
            task.batches_per_epoch,
            model=model,
            args=arguments(task, plain, folder),
            train_dataset=encoded(tokenizer, task.train, plain.tokens),
            eval_dataset=valid,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda answered: {"pr_auc": task.pr_auc(answered.predictions)},
        )
        trainer.train()
        if clock.curve[-1:] == [] or clock.curve[-1]["batches"] < task.batches_per_epoch * settings.epochs:
            trainer.evaluate()  # ours looks behind the last batch, wherever that is
    return clock
