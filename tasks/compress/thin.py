"""Stage thin: the teacher with some of its layers, which learns to say what it said with all of them.

No step of the compression path but, as the teacher in int8 and in bfloat16, what the student is measured against: the
layers that stay start as the teacher's own (Sun et al. 2019, Sanh et al. 2019). Its parity is reported, and fails nothing.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from pydantic import Field

from tasks.compress import transformer
from tasks.compress.descent import Descent, descend
from tasks.compress.distill import lesson, more
from tasks.compress.lesson import Voices
from tasks.compress.parity import Asked, Limits, broken, compare
from tasks.lineage import sha256
from tasks.model.checkpoint import Checkpoint
from tasks.model.train import make_deterministic
from tasks.model.variants import load_variant
from tasks.stage import Paths, folder_bytes, read_json, run, whole, write_json
from tasks.tracking import track


class Thin(Voices):
    every: int = Field(ge=1)
    """Of the teacher's layers the first stays and every so many behind it; 1: all."""
    descent: Descent
    threads: int | None = Field(ge=1)
    """Threads of torch; null: one a core. The weights depend on it in their last bits."""
    seed: int = Field(ge=0)
    opset: int
    """Version of the ONNX operator set."""
    parity: Limits
    """The thin teacher against the whole one."""


def thin(settings: Thin, paths: Paths) -> None:
    """Leave layers out of the teacher, train the rest on the teacher's logits, export it to ONNX and say what that cost."""
    rows = pd.read_parquet(paths.prepared)
    train, valid = (rows[rows.split == split] for split in ("train", "valid"))
    unlabelled = list(rows.text[rows.split == "unlabelled"])
    make_deterministic(settings.seed, settings.threads)
    pupil = transformer.Thin(paths.model("teacher"))
    layers = range(0, len(transformer.layers_of(pupil.network)), settings.every)
    transformer.keep_layers(pupil.network, layers, "thin.every")
    checkpoint = Checkpoint(paths.checkpoints / "thin", f"{settings.model_dump_json()} {sha256(paths.logits)}")
    with track("thin", settings, paths) as tracker:
        tracker.data(paths.prepared, rows[rows.split.isin(["train", "unlabelled"])], "distillation")
        held_out = lesson(valid, pupil, paths)
        learned = more(lesson(train, pupil, paths), unlabelled, 1.0, pupil, paths.model("teacher"))
        history = descend(pupil, learned, held_out, settings.descent, settings, settings.seed, checkpoint)
        for seen in history:
            tracker.metrics({name: seen[name] for name in ("train_loss", "valid_pr_auc")}, step=int(seen["epoch"]))
        with whole(paths.model("teacher-thin")) as temporary:
            temporary.mkdir()
            pupil.save(temporary, settings.opset)
            said = load_variant(temporary, torch.get_num_threads()).logits(list(valid.text))
        measured = compare(held_out.teacher, said, Asked.of(valid, read_json(paths.schema), settings.parity.slice_messages))
        over = broken(measured, settings.parity, "thin.parity")
        figures: dict[str, Any] = {
            "parity": measured.figures(),
            "over": over,
            "bytes": folder_bytes(paths.model("teacher-thin")),
            "history": history,
        }
        write_json(paths.report("thin.json"), figures)
        tracker.metrics(measured.figures())
    checkpoint.remove()
    score = history[-1]["valid_pr_auc"]
    print(f"{len(layers)} layers, {figures['bytes']:,} bytes: PR-AUC on valid {score:.4f}, flips {measured.flips:.2%}")
    for line in over:
        print(f"the thin teacher is not the teacher: {line}")


if __name__ == "__main__":
    run(thin, Thin)
