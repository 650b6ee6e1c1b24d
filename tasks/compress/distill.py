"""Stage distill: a small student learns what the teacher says.

The student reads a text by its own features, or is made of the teacher's own layers; ``distill.family`` says which. It
learns from the train split, from texts before the cut that have no label, and from pieces of both, if asked for: of what
has no label, the teacher alone is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import Field

from service.tokenizer import known_words
from tasks.compress.descent import Watch
from tasks.compress.families import Learning, learn, make_pupil
from tasks.compress.lesson import UNLABELLED, Lesson, teacher_logits
from tasks.compress.parity import Asked, Limits, ScoreLimits, compare, enforce
from tasks.compress.pupil import Pupil
from tasks.compress.texts import Crops, ask_teacher, crops
from tasks.lineage import sha256
from tasks.model.checkpoint import Checkpoint
from tasks.model.variants import load_variant
from tasks.stage import Paths, folder_bytes, read_json, run, whole, write_json
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
    parity: Limits
    """The student against the teacher."""


def lesson(rows: pd.DataFrame, pupil: Pupil, paths: Paths) -> Lesson:
    """What is to be learned from labelled messages that the teacher has seen."""
    logits = teacher_logits(paths, list(rows.id))
    return Lesson(pupil.encode(list(rows.text)), logits, rows.label_id.to_numpy(), rows.weight.to_numpy())


def more(lesson: Lesson, texts: Sequence[str], teacher: Logits, weight: float, pupil: Pupil) -> Lesson:
    """The lesson, and texts without labels behind it, of which the teacher says ``teacher``; each counts ``weight``."""
    return Lesson(
        [*lesson.texts, *pupil.encode(texts)],
        np.concatenate([lesson.teacher, teacher]),
        np.concatenate([lesson.labels, np.full(len(texts), UNLABELLED)]),
        np.concatenate([lesson.weights, np.full(len(texts), weight)]),
    )


def train_lesson(rows: pd.DataFrame, pupil: Pupil, settings: Distill, paths: Paths) -> Lesson:
    """All that a student learns from: labelled messages, messages without a label, and pieces of both."""
    train, unlabelled = rows[rows.split == "train"], rows[rows.split == "unlabelled"]
    found = lesson(train, pupil, paths)
    if len(unlabelled):
        found = more(found, list(unlabelled.text), teacher_logits(paths, list(unlabelled.id)), 1.0, pupil)
    pieces = crops([*train.text, *unlabelled.text], settings.crops, settings.seed)
    if pieces:
        found = more(found, pieces, ask_teacher(paths.model("teacher"), pieces), settings.crops.weight, pupil)
    return found


def save_network(pupil: Pupil, settings: Distill, folder: Path) -> None:
    """The network as it was trained, and how: from here a step that goes on training starts."""
    folder.mkdir()
    torch.save(pupil.network.state_dict(), folder / "network.pt")
    write_json(folder / "settings.json", settings.model_dump(mode="json"))


def distill(settings: Distill, paths: Paths, watch: Watch | None = None) -> None:
    """Train the student on the teacher's logits, export it to ONNX, and check it against both of its parents."""
    rows, schema = pd.read_parquet(paths.prepared), read_json(paths.schema)
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)
    valid = rows[rows.split == "valid"]
    words = known_words(list(rows.text[rows.split == "train"]), settings.min_documents, settings.known_bits)
    pupil = make_pupil(settings, len(schema["labels"]), words, paths.model("teacher"))
    asked = Asked.of(valid, schema, settings.parity.slice_messages)
    checkpoint = Checkpoint(paths.checkpoints / "distill", f"{settings.model_dump_json()} {sha256(paths.logits)}")
    with track("distill", settings, paths) as tracker:
        tracker.data(paths.prepared, rows[rows.split.isin(["train", "unlabelled"])], "distillation")
        train, held_out = train_lesson(rows, pupil, settings, paths), lesson(valid, pupil, paths)
        history = learn(pupil, train, held_out, settings, checkpoint, watch)
        for seen in history:
            tracker.metrics({name: seen[name] for name in ("train_loss", "valid_pr_auc")}, step=int(seen["epoch"]))
        trained = pupil.outputs(held_out.texts)
        with whole(paths.model("student")) as temporary:
            temporary.mkdir()
            pupil.save(temporary, settings.opset)
            exported = load_variant(temporary, 1).logits(list(valid.text))
            figures: dict[str, Any] = {
                "export": enforce(compare(trained, exported), settings.export_parity, "distill.export_parity"),
                "parity": enforce(compare(held_out.teacher, exported, asked), settings.parity, "distill.parity"),
                "known_words": int(words.sum()),
                "texts": {"labelled": int((train.labels != UNLABELLED).sum()), "all": len(train.labels)},
                "bytes": folder_bytes(temporary),
            }
        with whole(paths.model("student-network")) as temporary:
            save_network(pupil, settings, temporary)
        with whole(paths.report("distill.csv")) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        write_json(paths.report("distill.json"), figures)
        tracker.file(paths.report("distill.csv"))
        tracker.file(paths.report("distill.json"))
        tracker.headline({"student_valid_pr_auc": history[-1]["valid_pr_auc"]})
    checkpoint.remove()
    agreed, score = figures["parity"]["flips"], history[-1]["valid_pr_auc"]
    print(f"{settings.family}, {figures['bytes']:,} bytes: PR-AUC on valid {score:.4f}, flips {agreed:.2%}")


if __name__ == "__main__":
    run(distill, Distill)
