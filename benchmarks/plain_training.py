"""The baseline of ``benchmarks.training``: the same teacher fine-tuned by ``transformers.Trainer``, as in its guide."""

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
from tasks.kinds.text_classification.model.settings import Train
from tasks.kinds.text_classification.model.teacher import load_encoder
from tasks.metrics import ranking
from tasks.model.device import has_fast_bfloat16
from tasks.model.pretrained import locate
from tasks.stage import StageError


@dataclass(frozen=True)
class Task:
    """The data of all training runs, and their metric."""

    settings: Train
    train: pd.DataFrame
    valid: pd.DataFrame
    labels: int

    @property
    def batches_per_epoch(self) -> int:
        return -(-len(self.train) // self.settings.batch_size)

    @property
    def look_every(self) -> int:
        """Batches between two evaluations on valid."""
        return max(1, round(self.batches_per_epoch * self.settings.evaluate_every))

    def pr_auc(self, logits: npt.NDArray[np.float32]) -> float:
        """PR-AUC on valid, as in the stage train."""
        return ranking(logits, self.valid.label_id.to_numpy(), weights=self.valid.weight.to_numpy())["pr_auc"]


@dataclass(frozen=True)
class Plain:
    """One configuration of Trainer."""

    tokens: int
    """Tokens to which a message is truncated."""
    tuned: bool
    """Whether to use two of Trainer's own options: bfloat16 where the processor benefits, and batches of similar lengths."""

    @property
    def options(self) -> dict[str, Any]:
        if not self.tuned:
            return {}
        return {"bf16": has_fast_bfloat16(torch.device("cpu")), "train_sampling_strategy": "group_by_length"}


class TimedTrainer(Trainer):  # type: ignore[misc]
    """Trainer with its evaluations on valid timed separately."""

    def __init__(self, clock: Clock, batches_per_epoch: int, **options: Any) -> None:
        super().__init__(**options)
        self.clock, self.batches_per_epoch = clock, batches_per_epoch

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self.clock.look():
            figures: dict[str, float] = super().evaluate(*args, **kwargs)
        self.clock.note(round((self.state.epoch or 0) * self.batches_per_epoch), figures["eval_pr_auc"])
        return figures


def require_accelerate() -> None:
    """Raises StageError where accelerate, which Trainer requires, is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise StageError("transformers.Trainer needs accelerate: pip install -c constraints.txt -e '.[bench]'")


def longest_input(settings: Train) -> int:
    """The longest input in tokens: limited by the encoder, and by what our windows read together."""
    encoder, tokenizer = load_encoder(settings.model)
    positions = getattr(encoder.config, "max_position_embeddings", tokenizer.model_max_length)
    return int(min(positions, tokenizer.model_max_length, settings.windows * settings.window_tokens))


def encoded(tokenizer: Any, part: pd.DataFrame, tokens: int) -> list[dict[str, Any]]:
    """Messages in Trainer's format, truncated to ``tokens``."""
    columns = tokenizer(list(part.input), truncation=True, max_length=tokens)
    names, labels = list(columns), part.label_id.tolist()
    rows = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) | {"labels": label} for row, label in zip(rows, labels, strict=True)]


def arguments(task: Task, plain: Plain, folder: str) -> TrainingArguments:
    """The settings of the stage train that Trainer has too, with our evaluation interval; defaults otherwise."""
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
        **plain.options,
    )


def fit_plain(task: Task, plain: Plain) -> Clock:
    """One run of Trainer from raw texts to its last batch; its output files are discarded."""
    settings = task.settings
    logging.set_verbosity_error()  # it warns of the new head, which is intended
    torch.use_deterministic_algorithms(False)  # the default, whatever ran before
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    torch.manual_seed(settings.seed)
    _, tokenizer = load_encoder(settings.model)  # raises a clear error if the model is missing
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
            compute_metrics=lambda result: {"pr_auc": task.pr_auc(result.predictions)},
        )
        trainer.train()
        if clock.curve[-1:] == [] or clock.curve[-1]["batches"] < task.batches_per_epoch * settings.epochs:
            trainer.evaluate()  # ours always evaluates after the last batch
    return clock
