"""Stage distill: a small student learns what the teacher says.

The loss is that of Hinton, Vinyals and Dean (2015): cross-entropy with the label, and Kullback-Leibler divergence
from the teacher's probabilities at a temperature, weighed by its square. The student reads a text by its own features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from service.scorer import Student
from service.tokenizer import Tokenizer, known_words, pad
from tasks.compress.parity import Asked, Limits, ScoreLimits, compare, enforce
from tasks.compress.student import Network, save_student
from tasks.metrics import mean_one, ranking
from tasks.stage import Paths, Settings, StageError, read_json, run, whole, write_json
from tasks.tracking import Tracker, track


class Distill(Settings):
    bits: int = Field(ge=4, le=24)
    """Width of a feature's hash: the table has two to this many rows, which words, pairs and runs of characters share."""
    grams: list[int]
    """Lengths of the runs of characters that are features; words and pairs of neighbours always are."""
    known_bits: int = Field(ge=4, le=24)
    """Width of the word hashes by which a word that training saw is told from a new one."""
    min_documents: int = Field(ge=1)
    """Training texts that a word must stand in to be known."""
    dimensions: int = Field(ge=1)
    hidden: int = Field(ge=0)
    """Width of the hidden layer; 0: none, the student is linear in its rows."""
    row_dropout: float = Field(ge=0, lt=1)
    temperature: float = Field(gt=0)
    teacher_share: float = Field(ge=0, le=1)
    """Weight of the teacher's voice in the loss, 0 to 1; the rest is the label's."""
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float
    threads: int
    seed: int
    opset: int
    """Version of the ONNX operator set."""
    export_parity: ScoreLimits
    """The exported model against the network that was trained."""
    parity: Limits
    """The student against the teacher."""


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, temperature: float, teacher_share: float
) -> Tensor:
    """Sum of both losses by their shares, for logits ``[n, labels]`` and what each message counts, ``[n]``.

    The square keeps gradients alike at any temperature.
    """
    hard = (nn.functional.cross_entropy(student, labels, reduction="none") * weights).mean()
    divergences = nn.functional.kl_div(
        torch.log_softmax(student / temperature, dim=1),
        torch.log_softmax(teacher / temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    soft = (divergences.sum(dim=1) * weights).mean()
    return (1 - teacher_share) * hard + teacher_share * temperature**2 * soft


@dataclass(frozen=True)
class Lesson:
    """Messages of one split as the student sees them, with what is to be said of them and what each counts."""

    rows: Sequence[npt.NDArray[np.int64]]
    teacher: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


def fit(
    network: Network, train: Lesson, valid: Lesson, settings: Distill, tracker: Tracker | None = None
) -> list[dict[str, float]]:
    """Train ``network`` in place over all epochs of one-cycle learning rate; its history, an entry an epoch."""
    rows, weights = train.rows, mean_one(train.weights)
    steps = math.ceil(len(rows) / settings.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.1
    )
    chance = np.random.default_rng(settings.seed)
    history = []
    for epoch in tqdm(range(1, settings.epochs + 1), desc="distill", unit=" epochs"):
        network.train()
        losses = []
        for batch in np.array_split(chance.permutation(len(rows)), steps):
            loss = distillation_loss(
                network(torch.from_numpy(pad([rows[row] for row in batch]))),
                torch.from_numpy(train.teacher[batch]),
                torch.from_numpy(train.labels[batch]),
                torch.from_numpy(weights[batch]),
                settings.temperature,
                settings.teacher_share,
            )
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        figures = {
            "train_loss": float(np.mean(losses)),
            "valid_pr_auc": ranking(outputs(network, valid.rows), valid.labels, weights=valid.weights)["pr_auc"],
        }
        history.append({"epoch": epoch, **figures})
        if tracker:
            tracker.metrics(figures, step=epoch)
    return history


def outputs(network: Network, rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """Logits of the network in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(pad(rows[start : start + 32]))).numpy() for start in range(0, len(rows), 32)]
    return np.concatenate(parts)


def teacher_logits(paths: Paths, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    """The teacher's logits of these messages, in this order. Raises StageError where one has none."""
    with np.load(paths.logits) as stored:
        row_of = {name: row for row, name in enumerate(stored["ids"])}
        try:
            logits: npt.NDArray[np.float32] = stored["logits"][[row_of[name] for name in ids]]
        except KeyError as error:
            raise StageError(f"{paths.logits.name}: the teacher never saw message {error}; run train again") from error
    return logits


def distill(settings: Distill, paths: Paths) -> None:
    """Train the student on the teacher's logits, export it to ONNX, and check it against both of its parents."""
    rows = pd.read_parquet(paths.prepared)
    schema = read_json(paths.schema)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    parts = {split: rows[rows.split == split] for split in ("train", "valid")}
    words = known_words(list(parts["train"].text), settings.min_documents, settings.known_bits)
    tokenizer = Tokenizer(settings.grams, settings.bits, words)
    lessons = {
        split: Lesson(
            [tokenizer.encode(text) for text in part.text],
            teacher_logits(paths, list(part.id)),
            part.label_id.to_numpy(),
            part.weight.to_numpy(),
        )
        for split, part in parts.items()
    }
    asked = Asked.of(parts["valid"], schema, settings.parity.slice_messages)
    network = Network(tokenizer.rows, settings.dimensions, settings.hidden, len(schema["labels"]), settings.row_dropout)
    with track("distill", settings, paths) as tracker:
        tracker.data(paths.prepared, parts["train"], "distillation")
        history = fit(network, lessons["train"], lessons["valid"], settings, tracker)
        trained = outputs(network, lessons["valid"].rows)
        with whole(paths.model("student")) as temporary:
            temporary.mkdir()
            save_student(network, tokenizer, temporary, settings.opset)
            exported = Student(temporary).logits(list(parts["valid"].text))
            figures = {
                "export": enforce(compare(trained, exported), settings.export_parity, "distill.export_parity"),
                "parity": enforce(compare(lessons["valid"].teacher, exported, asked), settings.parity, "distill.parity"),
                "known_words": int(words.sum()),
                "rows": tokenizer.rows,
            }
        with whole(paths.report("distill.csv")) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        write_json(paths.report("distill.json"), figures)
        tracker.file(paths.report("distill.csv"))
        tracker.file(paths.report("distill.json"))
        tracker.headline({"student_valid_pr_auc": history[-1]["valid_pr_auc"]})
    print(f"{words.sum()} words, PR-AUC on valid {history[-1]['valid_pr_auc']:.4f}, flips {figures['parity']['flips']:.2%}")  # type: ignore[index]


if __name__ == "__main__":
    run(distill, Distill)
