"""Stage distill: train a small student on the teacher's logits.

Which families of students there are is a matter of the kind; ``distill.family`` chooses one. A student learns from the train
split, from unlabelled inputs received before the cut, and from inputs made of both (crops, augmented copies): one without a
label has the teacher's loss only. ``auto`` tries families until one is close enough to the teacher.
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

from tasks.compress.distillation import UNLABELLED, DistillData, teacher_logits
from tasks.compress.parity import ParityRows, compare, enforce, reported
from tasks.compress.settings import Distill
from tasks.compress.sgd import History, Watch
from tasks.compress.student import Student
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.kinds import compress_part, model_part, settings_of
from tasks.lineage import sha256
from tasks.metrics import ranking
from tasks.model.checkpoint import Checkpoint
from tasks.model.device import CPU, has_fast_bfloat16
from tasks.model.variants import load_variant
from tasks.stage import Paths, run
from tasks.tracking import track

Logits = npt.NDArray[np.float32]


def distill_data(rows: pd.DataFrame, student: Student, paths: Paths) -> DistillData:
    """Encoded inputs, teacher logits, labels and weights of labelled rows that the teacher has scored."""
    logits = teacher_logits(paths, list(rows.id))
    return DistillData(student.encode(list(rows.input)), logits, rows.label_id.to_numpy(), rows.weight.to_numpy())


def with_unlabelled(
    distill_data: DistillData, inputs: Sequence[Any], teacher: Logits, weight: float, student: Student
) -> DistillData:
    """``distill_data`` with unlabelled inputs appended, their teacher logits ``teacher``, each of weight ``weight``."""
    return DistillData(
        [*distill_data.inputs, *student.encode(inputs)],
        np.concatenate([distill_data.teacher, teacher]),
        np.concatenate([distill_data.labels, np.full(len(inputs), UNLABELLED)]),
        np.concatenate([distill_data.weights, np.full(len(inputs), weight)]),
    )


def teacher_predict(kind: str, folder: Path, inputs: Sequence[Any]) -> Logits:
    """Logits ``float32[n, labels]`` of the teacher in ``folder`` for at least one input."""
    teacher = model_part(kind).load_teacher(folder)
    return teacher.predict(teacher.encode(inputs), CPU, has_fast_bfloat16(CPU))


def train_data(rows: pd.DataFrame, student: Student, settings: Distill, kind: str, paths: Paths) -> DistillData:
    """All that a student is trained on: labelled rows, unlabelled rows, and inputs made of both."""
    train, unlabelled = rows[rows.split == "train"], rows[rows.split == "unlabelled"]
    data = distill_data(train, student, paths)
    if len(unlabelled):
        data = with_unlabelled(data, list(unlabelled.input), teacher_logits(paths, list(unlabelled.id)), 1.0, student)
    extra = compress_part(kind).extra_inputs([*train.input, *unlabelled.input], settings, paths.model("teacher"))
    if extra:
        scores = teacher_predict(kind, paths.model("teacher"), extra)
        data = with_unlabelled(data, extra, scores, settings.extra_weight, student)
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
    inputs: int

    @property
    def pr_auc(self) -> float:
        """On valid."""
        return self.history[-1]["valid_pr_auc"]


class Trainer:
    """Trains students of different families on the same inputs."""

    def __init__(self, settings: Distill, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.rows, schema = pd.read_parquet(paths.prepared), read_json(paths.schema)
        self.kind, self.labels = schema["kind"], len(schema["labels"])
        self.part = compress_part(self.kind)
        self.valid = self.rows[self.rows.split == "valid"]
        self.context = self.part.context(list(self.rows.input[self.rows.split == "train"]), settings)

    def train(self, settings: Distill, watch: Watch | None) -> Trained:
        """A student of ``settings.family``; it resumes from the checkpoint of a killed run, if there is one."""
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.torch_threads)
        student = self.part.new_student(settings, self.labels, self.context, self.paths.model("teacher"))
        train = train_data(self.rows, student, settings, self.kind, self.paths)
        held_out = distill_data(self.valid, student, self.paths)
        if self.settings.family == "auto":
            print(f"{settings.family}: about {duration(self.part.forecast(student, train, settings))}")
        identity = f"{settings.model_dump_json()} {sha256(self.paths.logits)}"
        checkpoint = Checkpoint(self.paths.checkpoints / "distill", identity)
        history = self.part.learn(student, train, held_out, settings, checkpoint, watch)
        labelled = int((train.labels != UNLABELLED).sum())
        return Trained(settings, student, history, held_out, labelled, len(train.labels))

    def best(self, watch: Watch | None) -> tuple[Trained, list[Trained]]:
        """The first family close enough to the teacher, or the closest one where none is; and all that were trained."""
        valid = self.valid
        teacher_pr_auc = ranking(
            teacher_logits(self.paths, list(valid.id)), valid.label_id.to_numpy(), weights=valid.weight.to_numpy()
        )["pr_auc"]
        trained: list[Trained] = []
        for settings in self.part.families(self.settings, self.labels):
            trained.append(self.train(settings, watch))
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
    parity_rows = ParityRows.of(valid, read_json(paths.schema), settings.parity.slice_rows)
    with track("distill", settings, paths) as tracker:
        tracker.data(paths.prepared, trainer.rows[trainer.rows.split.isin(["train", "unlabelled"])], "distillation")
        chosen, candidates = trainer.best(watch)
        history, student = chosen.history, chosen.student
        for entry in history:
            tracker.metrics({name: entry[name] for name in ("train_loss", "valid_pr_auc")}, step=int(entry["epoch"]))
        network_logits = student.outputs(chosen.held_out.inputs)
        with atomic_write(paths.model("student")) as temporary:
            temporary.mkdir()
            student.save(temporary, settings.opset)
            onnx_logits = load_variant(temporary, 1).logits(list(valid.input))
            parity = compare(chosen.held_out.teacher, onnx_logits, parity_rows)
            figures: dict[str, Any] = {
                "family": chosen.settings.family,
                "tried": [{"family": candidate.settings.family, "valid_pr_auc": candidate.pr_auc} for candidate in candidates],
                "export": enforce(compare(network_logits, onnx_logits), settings.export_parity, "distill.export_parity"),
                "parity": parity.figures(),
                "over": reported(parity, settings.parity, "distill.parity"),
                "inputs": {"labelled": chosen.labelled, "all": chosen.inputs},
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
    run(distill, settings_of("distill"))
