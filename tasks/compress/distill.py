"""Stage distill: a small student learns what the teacher says.

The student reads a text by its own features, or is made of the teacher's own layers; ``distill.family`` says which. It
learns from the train split, from texts before the cut that have no label, and from pieces of both, if asked for: of what
has no label, the teacher alone is heard. ``auto`` tries families until one is near enough to the teacher.
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
from tasks.compress.texts import Crops, ask_teacher, crops
from tasks.lineage import sha256
from tasks.metrics import ranking
from tasks.model.checkpoint import Checkpoint
from tasks.model.variants import load_variant
from tasks.stage import Paths, atomic_write, folder_bytes, read_json, run, write_json
from tasks.tracking import track

Logits = npt.NDArray[np.float32]


class Distill(Learning):
    known_bits: int = Field(ge=4, le=24)
    """Width of the word hashes by which a word that training saw is told from a new one."""
    min_documents: int = Field(ge=1)
    """Training texts that a word must stand in to be known."""
    crops: Crops
    opset: int
    """Version of the ONNX operator set."""
    export_parity: ScoreLimits
    """The exported model against the network that was trained."""
    parity: ParityLimits
    """The student against the teacher; what is over is said, and the rule of choice decides."""


def distill_data(rows: pd.DataFrame, student: Student, paths: Paths) -> DistillData:
    """What is to be learned from labelled messages that the teacher has seen."""
    logits = teacher_logits(paths, list(rows.id))
    return DistillData(student.encode(list(rows.text)), logits, rows.label_id.to_numpy(), rows.weight.to_numpy())


def more(distill_data: DistillData, texts: Sequence[str], teacher: Logits, weight: float, student: Student) -> DistillData:
    """The lesson, and texts without labels behind it, of which the teacher says ``teacher``; each counts ``weight``."""
    return DistillData(
        [*distill_data.texts, *student.encode(texts)],
        np.concatenate([distill_data.teacher, teacher]),
        np.concatenate([distill_data.labels, np.full(len(texts), UNLABELLED)]),
        np.concatenate([distill_data.weights, np.full(len(texts), weight)]),
    )


def train_data(rows: pd.DataFrame, student: Student, settings: Distill, paths: Paths) -> DistillData:
    """All that a student learns from: labelled messages, messages without a label, and pieces of both."""
    train, unlabelled = rows[rows.split == "train"], rows[rows.split == "unlabelled"]
    found = distill_data(train, student, paths)
    if len(unlabelled):
        found = more(found, list(unlabelled.text), teacher_logits(paths, list(unlabelled.id)), 1.0, student)
    pieces = crops([*train.text, *unlabelled.text], settings.crops, settings.seed)
    if pieces:
        found = more(found, pieces, ask_teacher(paths.model("teacher"), pieces), settings.crops.weight, student)
    return found


def save_network(student: Student, settings: Distill, folder: Path) -> None:
    """The network as it was trained, and how: from here a step that goes on training starts."""
    folder.mkdir()
    torch.save(student.network.state_dict(), folder / "network.pt")
    write_json(folder / "settings.json", settings.model_dump(mode="json"))


@dataclass(frozen=True)
class Trained:
    """A student that has learned, and by which settings."""

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
    """Trains students of one family or another on the same texts."""

    def __init__(self, settings: Distill, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.rows, self.labels = pd.read_parquet(paths.prepared), len(read_json(paths.schema)["labels"])
        self.valid = self.rows[self.rows.split == "valid"]
        train_texts = list(self.rows.text[self.rows.split == "train"])
        self.words = known_words(train_texts, settings.min_documents, settings.known_bits)

    def train(self, settings: Distill, watch: Watch | None) -> Trained:
        """A student of ``settings.family``; where a killed run left one half-way, it goes on there."""
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
        """The first family near enough to the teacher, or the nearest of all where none is; and all that were trained."""
        valid = self.valid
        teacher = ranking(
            teacher_logits(self.paths, list(valid.id)), valid.label_id.to_numpy(), weights=valid.weight.to_numpy()
        )["pr_auc"]
        tried: list[Trained] = []
        for settings in families(self.settings, self.labels):
            tried.append(self.train(Distill.model_validate(settings.model_dump()), watch))
            loss = teacher - tried[-1].pr_auc
            if not loss > self.settings.auto.margin:
                return tried[-1], tried
            print(f"{settings.family}: PR-AUC on valid {tried[-1].pr_auc:.4f}, {loss:.4f} below the teacher's")
        return max(tried, key=lambda one: one.pr_auc), tried


def duration(seconds: float) -> str:
    """A time as it is told: ``20 s``, ``3 min``."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def distill(settings: Distill, paths: Paths, watch: Watch | None = None) -> None:
    """Train the student on the teacher's logits, export it to ONNX, and check it against both of its parents."""
    torch.use_deterministic_algorithms(True)
    trainer = Trainer(settings, paths)
    valid = trainer.valid
    asked = ParityRows.of(valid, read_json(paths.schema), settings.parity.slice_messages)
    with track("distill", settings, paths) as tracker:
        tracker.data(paths.prepared, trainer.rows[trainer.rows.split.isin(["train", "unlabelled"])], "distillation")
        chosen, tried = trainer.best(watch)
        history, student = chosen.history, chosen.student
        for seen in history:
            tracker.metrics({name: seen[name] for name in ("train_loss", "valid_pr_auc")}, step=int(seen["epoch"]))
        trained = student.outputs(chosen.held_out.texts)
        with atomic_write(paths.model("student")) as temporary:
            temporary.mkdir()
            student.save(temporary, settings.opset)
            exported = load_variant(temporary, 1).logits(list(valid.text))
            parity = compare(chosen.held_out.teacher, exported, asked)
            figures: dict[str, Any] = {
                "family": chosen.settings.family,
                "tried": [{"family": one.settings.family, "valid_pr_auc": one.pr_auc} for one in tried],
                "export": enforce(compare(trained, exported), settings.export_parity, "distill.export_parity"),
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
