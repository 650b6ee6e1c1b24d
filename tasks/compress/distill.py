"""Stage distill: train a small student on the teacher's logits.

The student has features of its own, or is made of some of the teacher's layers; ``distill.family`` says which. It learns from
the train split, from unlabelled texts received before the cut, and from crops of both, if configured: a text without a label
has the teacher's loss only. ``auto`` tries families until one is close enough to the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import Field

from service.tokenizer import known_words
from tasks.compress.distillation import UNLABELLED, DistillData, teacher_logits
from tasks.compress.families import Learning, families, forecast, learn, make_student, use_threads
from tasks.compress.parity import ParityLimits, ParityRows, ScoreLimits, compare, enforce, reported
from tasks.compress.sgd import History, Watch
from tasks.compress.student import Student
from tasks.compress.texts import Crops, crops, teacher_predict
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.lineage import sha256
from tasks.metrics import ranking
from tasks.model.checkpoint import Checkpoint
from tasks.model.variants import load_variant
from tasks.stage import Paths, run
from tasks.tracking import track

Logits = npt.NDArray[np.float32]


class Distill(Learning):
    known_bits: int = Field(ge=4, le=24)
    """Width of the word hashes by which a word seen in training is told from a new one."""
    min_documents: int = Field(ge=1)
    """Number of training texts a word must occur in to count as known."""
    crops: Crops
    opset: int
    """Version of the ONNX operator set."""
    export_parity: ScoreLimits
    """The exported model against the trained network."""
    parity: ParityLimits
    """The student against the teacher; what is over a bound is reported, and the rule of choice decides."""


def distill_data(rows: pd.DataFrame, student: Student, paths: Paths) -> DistillData:
    """Encoded texts, teacher logits, labels and weights of labelled messages that the teacher has scored."""
    logits = teacher_logits(paths, list(rows.id))
    return DistillData(student.encode(list(rows.text)), logits, rows.label_id.to_numpy(), rows.weight.to_numpy())


def with_unlabelled(
    distill_data: DistillData, texts: Sequence[str], teacher: Logits, weight: float, student: Student
) -> DistillData:
    """``distill_data`` with unlabelled texts appended, their teacher logits ``teacher``, each of weight ``weight``."""
    return DistillData(
        [*distill_data.texts, *student.encode(texts)],
        np.concatenate([distill_data.teacher, teacher]),
        np.concatenate([distill_data.labels, np.full(len(texts), UNLABELLED)]),
        np.concatenate([distill_data.weights, np.full(len(texts), weight)]),
    )


def train_data(rows: pd.DataFrame, student: Student, settings: Distill, paths: Paths) -> DistillData:
    """All that a student is trained on: labelled messages, unlabelled messages, and crops of both."""
    train, unlabelled = rows[rows.split == "train"], rows[rows.split == "unlabelled"]
    data = distill_data(train, student, paths)
    if len(unlabelled):
        data = with_unlabelled(data, list(unlabelled.text), teacher_logits(paths, list(unlabelled.id)), 1.0, student)
    pieces = crops([*train.text, *unlabelled.text], settings.crops, settings.seed)
    if pieces:
        data = with_unlabelled(data, pieces, teacher_predict(paths.model("teacher"), pieces), settings.crops.weight, student)
    return data


def save_network(student: Student, settings: Distill, folder: Path) -> None:
    """The trained weights and the settings of the run: a later step that goes on training starts from here."""
    folder.mkdir()
    torch.save(student.network.state_dict(), folder / "network.pt")
    write_json(folder / "settings.json", settings.model_dump(mode="json"))


@dataclass(frozen=True)
class Trained:
    """A trained student, its settings and its training history."""

    settings: Distill
    student: Student
    history: History
    held_out: DistillData
    labelled: int
    texts: int

    @property
    def pr_auc(self) -> float:
        """On valid."""
        return self.history[-1]["valid_pr_auc"]


class Trainer:
    """Trains students of different families on the same texts."""

    def __init__(self, settings: Distill, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.rows, self.labels = pd.read_parquet(paths.prepared), len(read_json(paths.schema)["labels"])
        self.valid = self.rows[self.rows.split == "valid"]
        train_texts = list(self.rows.text[self.rows.split == "train"])
        self.words = known_words(train_texts, settings.min_documents, settings.known_bits)

    def train(self, settings: Distill, watch: Watch | None) -> Trained:
        """A student of ``settings.family``; it resumes from the checkpoint of a killed run, if there is one."""
        torch.manual_seed(settings.seed)
        use_threads(settings)
        student = make_student(settings, self.labels, self.words, self.paths.model("teacher"))
        train, held_out = train_data(self.rows, student, settings, self.paths), distill_data(self.valid, student, self.paths)
        if self.settings.family == "auto":
            print(f"{settings.family}: about {duration(forecast(student, train, settings))}")
        identity = f"{settings.model_dump_json()} {sha256(self.paths.logits)}"
        history = learn(student, train, held_out, settings, Checkpoint(self.paths.checkpoints / "distill", identity), watch)
        labelled = int((train.labels != UNLABELLED).sum())
        return Trained(settings, student, history, held_out, labelled, len(train.labels))

    def best(self, watch: Watch | None) -> tuple[Trained, list[Trained]]:
        """The first family close enough to the teacher, or the closest one where none is; and all that were trained."""
        valid = self.valid
        teacher_pr_auc = ranking(
            teacher_logits(self.paths, list(valid.id)), valid.label_id.to_numpy(), weights=valid.weight.to_numpy()
        )["pr_auc"]
        trained: list[Trained] = []
        for settings in families(self.settings, self.labels):
            trained.append(self.train(Distill.model_validate(settings.model_dump()), watch))
            loss = teacher_pr_auc - trained[-1].pr_auc
            if not loss > self.settings.auto.margin:
                return trained[-1], trained
            print(f"{settings.family}: PR-AUC on valid {trained[-1].pr_auc:.4f}, {loss:.4f} below the teacher's")
        return max(trained, key=lambda candidate: candidate.pr_auc), trained


def duration(seconds: float) -> str:
    """A time for people: ``20 s``, ``3 min``."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def distill(settings: Distill, paths: Paths, watch: Watch | None = None) -> None:
    """Train the student on the teacher's logits, export it to ONNX, and check it against the network and the teacher."""
    torch.use_deterministic_algorithms(True)
    trainer = Trainer(settings, paths)
    valid = trainer.valid
    parity_rows = ParityRows.of(valid, read_json(paths.schema), settings.parity.slice_messages)
    with track("distill", settings, paths) as tracker:
        tracker.data(paths.prepared, trainer.rows[trainer.rows.split.isin(["train", "unlabelled"])], "distillation")
        chosen, candidates = trainer.best(watch)
        history, student = chosen.history, chosen.student
        for entry in history:
            tracker.metrics({name: entry[name] for name in ("train_loss", "valid_pr_auc")}, step=int(entry["epoch"]))
        network_logits = student.outputs(chosen.held_out.texts)
        with atomic_write(paths.model("student")) as temporary:
            temporary.mkdir()
            student.save(temporary, settings.opset)
            onnx_logits = load_variant(temporary, 1).logits(list(valid.text))
            parity = compare(chosen.held_out.teacher, onnx_logits, parity_rows)
            figures: dict[str, Any] = {
                "family": chosen.settings.family,
                "tried": [{"family": candidate.settings.family, "valid_pr_auc": candidate.pr_auc} for candidate in candidates],
                "export": enforce(compare(network_logits, onnx_logits), settings.export_parity, "distill.export_parity"),
                "parity": parity.figures(),
                "over": reported(parity, settings.parity, "distill.parity"),
                "known_words": int(trainer.words.sum()),
                "texts": {"labelled": chosen.labelled, "all": chosen.texts},
                "bytes": folder_bytes(temporary),
            }
        with atomic_write(paths.model("student-network")) as temporary:
            save_network(student, chosen.settings, temporary)
        with atomic_write(paths.report("distill.csv")) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        write_json(paths.report("distill.json"), figures)
        tracker.file(paths.report("distill.csv"))
        tracker.file(paths.report("distill.json"))
        tracker.headline({"student_valid_pr_auc": chosen.pr_auc})
    Checkpoint(paths.checkpoints / "distill", "").remove()
    disagreement = figures["parity"]["disagreement_rate"]
    print(
        f"{figures['family']}, {figures['bytes']:,} bytes: PR-AUC on valid {chosen.pr_auc:.4f}, "
        f"{disagreement:.2%} of answers differ from the teacher's"
    )


if __name__ == "__main__":
    run(distill, Distill)
