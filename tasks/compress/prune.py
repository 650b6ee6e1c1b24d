"""Stage prune: remove the least sensitive parts of the student, fine-tune it, and keep the smallest that is good enough.

Each entry of the sweep starts from the parent. Size alone does not decide: the smallest student is kept that loses no more
than ``margin`` of PR-AUC on valid and agrees with its parent. That may be the unpruned parent.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from tqdm import tqdm

from tasks.compress.distill import Distill, distill_data, train_data
from tasks.compress.families import learn, make_student, use_threads
from tasks.compress.parity import ParityLimits, ParityRows, broken, compare
from tasks.compress.sgd import valid_pr_auc
from tasks.compress.student import Hashed, Student
from tasks.compress.units import halve_rows, prunables, remove
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.model.variants import load_variant
from tasks.stage import Paths, Settings, StageError, run
from tasks.tracking import track

Shares = dict[str, float]
"""The share to remove of each kind of part: rows (in halves), dimensions, hidden, filters, heads, feed_forward, layers."""


class Sweep(Settings):
    """What to try in turn for a student of each family."""

    linear: list[Shares]
    bag: list[Shares]
    cnn: list[Shares]
    transformer: list[Shares]


class Recovery(Settings):
    """Epochs of fine-tuning after pruning, by family; passes for the linear one."""

    linear: int = Field(ge=0)
    bag: int = Field(ge=0)
    cnn: int = Field(ge=0)
    transformer: int = Field(ge=0)


class Prune(Settings):
    parent: str
    """The folder below models/ that is pruned; its trained network is in the folder beside it, with the suffix -network."""
    sweep: Sweep
    recovery: Recovery
    margin: float = Field(ge=0)
    """PR-AUC on valid that it may lose against its parent."""
    parity: ParityLimits
    """The pruned student against its parent: one out of these bounds is not kept."""


class Parent:
    """The student to prune, with all that is needed to fine-tune it."""

    def __init__(self, name: str, paths: Paths) -> None:
        folder, network = paths.model(name), paths.model(f"{name}-network")
        if not (network / "network.pt").exists():
            raise StageError(f"prune.parent = {name!r}: models/{network.name} holds no network to go on with; run distill")
        self.settings = Distill.model_validate(read_json(network / "settings.json"))
        self.folder, self._network, self._paths = folder, network / "network.pt", paths
        with np.load(folder / "words.npz") as file:
            count = read_json(folder / "variant.json")["known_words"]
            self._known = np.unpackbits(file["known"], count=count).astype(np.bool_)
        self._rows = pd.read_parquet(paths.prepared)
        self.valid = self._rows[self._rows.split == "valid"]
        self.train_texts = list(self._rows.text[self._rows.split == "train"])
        self.schema = read_json(paths.schema)

    def student(self) -> Student:
        """A new copy of the student as trained."""
        torch.manual_seed(self.settings.seed)
        student = make_student(self.settings, len(self.schema["labels"]), self._known, self._paths.model("teacher"))
        student.network.load_state_dict(torch.load(self._network, weights_only=True))
        return student

    def pruned(self, shares: Shares, recovery: int) -> tuple[Student, dict[str, float]]:
        """(student without these shares of its parts, PR-AUC on valid before and after fine-tuning)."""
        student = self.student()
        for kind, share in shares.items():
            student = remove_share(student, kind, share, self)
        held_out = distill_data(self.valid, student, self._paths)
        figures = {"cut_pr_auc": valid_pr_auc(student, held_out)}
        if recovery and shares:
            train = train_data(self._rows, student, self.settings, self._paths)
            learn(student, train, held_out, self.settings, epochs=recovery)
        return student, figures | {"pr_auc": valid_pr_auc(student, held_out)}

    def held_out(self, student: Student) -> Any:
        return distill_data(self.valid, student, self._paths)


def remove_share(student: Student, kind: str, share: float, parent: Parent) -> Student:
    """The student without ``share`` of its parts of ``kind``. Raises StageError where that cannot be removed."""
    where = f"prune.sweep.{parent.settings.family}: {kind}: {share}"
    if not 0 < share < 1:
        raise StageError(f"{where}: a share lies between 0 and 1")
    if kind == "rows" and isinstance(student, Hashed):
        halvings = math.log2(1 / (1 - share))
        if halvings != round(halvings) or student.tokenizer.bits - halvings < 4:
            raise StageError(f"{where}: rows go in halves (0.5, 0.75, 0.875, ...), down to 4 bits")
        for _ in range(round(halvings)):
            student = halve_rows(student, parent.train_texts)
        return student
    if not prunables(student, kind) or (parent.settings.family == "linear"):
        raise StageError(f"{where}: a student of the family {parent.settings.family!r} has none of these parts")
    remove(student, kind, share, parent.held_out(student), parent.settings)
    return student


def smallest(table: list[dict[str, Any]], margin: float) -> int:
    """The index of the smallest row, in bytes, that is within ``margin`` of the first row's PR-AUC and agrees with the first.

    The first row is the parent, which is always good enough.
    """
    candidates = [
        n for n, row in enumerate(table) if n == 0 or (row["pr_auc"] >= table[0]["pr_auc"] - margin and not row["over"])
    ]
    return min(candidates, key=lambda number: (table[number]["bytes"], number))


def prune(settings: Prune, paths: Paths) -> None:
    """Try each entry of the sweep, keep the smallest student that is good enough, and check it against its parent."""
    parent = Parent(settings.parent, paths)
    torch.use_deterministic_algorithms(True)
    use_threads(parent.settings)
    parity_rows = ParityRows.of(parent.valid, parent.schema, settings.parity.slice_messages)
    with track("prune", settings, paths) as tracker:
        table: list[dict[str, Any]] = []
        parities: list[dict[str, float]] = []
        texts = list(parent.valid.text)
        parent_logits = load_variant(parent.folder, 1).logits(texts)
        with atomic_write(paths.model("student-pruned")) as temporary:
            temporary.mkdir()
            sweep: list[Shares] = [{}, *getattr(settings.sweep, parent.settings.family)]
            for shares in tqdm(sweep, desc="prune", unit=" students"):
                student, figures = parent.pruned(shares, getattr(settings.recovery, parent.settings.family))
                folder = temporary / str(len(table))
                folder.mkdir()
                student.save(folder, parent.settings.opset)
                parity = compare(parent_logits, load_variant(folder, 1).logits(texts), parity_rows)
                over = broken(parity, settings.parity, "prune.parity")
                table.append({"removed": dict(shares), "bytes": folder_bytes(folder), **figures, "over": over})
                parities.append(parity.figures())
                tracker.metrics({name: float(table[-1][name]) for name in ("bytes", "pr_auc")}, step=len(table) - 1)
            chosen = smallest(table, settings.margin)
            keep_only(temporary / str(chosen), temporary)
        sizes = {"before": folder_bytes(parent.folder), "after": folder_bytes(paths.model("student-pruned"))}
        write_json(
            paths.report("prune.json"),
            {"parity": parities[chosen], "bytes": sizes, "removed": table[chosen]["removed"], "sweep": table},
        )
        with atomic_write(paths.report("prune.csv")) as temporary:
            pd.DataFrame([{"bytes": row["bytes"], "valid_pr_auc": row["pr_auc"]} for row in table]).to_csv(
                temporary, index=False
            )
        tracker.file(paths.report("prune.json"))
    removed = ", ".join(f"{share:.1%} of its {kind}" for kind, share in table[chosen]["removed"].items()) or "nothing"
    print(
        f"{removed} taken out: {sizes['before']:,} -> {sizes['after']:,} bytes, PR-AUC on valid {table[chosen]['pr_auc']:.4f}"
    )


def keep_only(best: Path, folder: Path) -> None:
    """Move the files of ``best``, a folder below ``folder``, up into ``folder``, and remove all folders there."""
    for path in best.iterdir():
        path.replace(folder / path.name)
    for path in folder.iterdir():
        if path.is_dir():
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


if __name__ == "__main__":
    run(prune, Prune)
