"""Stage prune: remove the least sensitive parts of the student, fine-tune it, and keep the smallest that is good enough.

Each entry of the sweep starts from the parent. Size alone does not decide: the smallest student is kept that loses no more
than ``margin`` of PR-AUC on valid and agrees with its parent. That may be the unpruned parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from tasks.compress.distill import distill_data, train_data
from tasks.compress.distillation import DistillData
from tasks.compress.parity import ParityRows, broken, compare
from tasks.compress.settings import Distill, Prune, Shares
from tasks.compress.sgd import valid_pr_auc
from tasks.compress.student import Student
from tasks.files import atomic_write, folder_bytes, read_json, write_json
from tasks.kinds import compress_part, settings_of
from tasks.model.variants import load_variant
from tasks.stage import Paths, StageError, run
from tasks.tracking import track


class Parent:
    """The student to prune, with all that is needed to fine-tune it."""

    def __init__(self, name: str, paths: Paths) -> None:
        folder, network = paths.model(name), paths.model(f"{name}-network")
        if not (network / "network.pt").exists():
            raise StageError(f"prune.parent = {name!r}: models/{network.name} holds no network to go on with; run distill")
        self.schema = read_json(paths.schema)
        self._part = compress_part(self.schema["kind"])
        self.settings: Distill = self._part.Distill.model_validate(read_json(network / "settings.json"))
        self.folder, self._network, self._paths = folder, network / "network.pt", paths
        self._context = self._part.saved_context(folder)
        self._rows = pd.read_parquet(paths.prepared)
        self.valid = self._rows[self._rows.split == "valid"]
        self.train_inputs = list(self._rows.input[self._rows.split == "train"])

    def student(self) -> Student:
        """A new copy of the student as trained."""
        torch.manual_seed(self.settings.seed)
        labels, teacher = len(self.schema["labels"]), self._paths.model("teacher")
        student: Student = self._part.new_student(self.settings, labels, self._context, teacher)
        student.network.load_state_dict(torch.load(self._network, weights_only=True))
        return student

    def pruned(self, shares: Shares, recovery: int) -> tuple[Student, dict[str, float]]:
        """(student without these shares of its parts, PR-AUC on valid before and after fine-tuning)."""
        student = self.student()
        for part, share in shares.items():
            if not 0 < share < 1:
                raise StageError(f"{self.where(part, share)}: a share lies between 0 and 1")
            student = self._part.remove_share(student, part, share, self)
        held_out = distill_data(self.valid, student, self._paths)
        figures = {"cut_pr_auc": valid_pr_auc(student, held_out)}
        if recovery and shares:
            train = train_data(self._rows, student, self.settings, self.schema["kind"], self._paths)
            self._part.learn(student, train, held_out, self.settings, epochs=recovery)
        return student, figures | {"pr_auc": valid_pr_auc(student, held_out)}

    def held_out(self, student: Student) -> DistillData:
        """Valid as ``student`` encodes it."""
        return distill_data(self.valid, student, self._paths)

    def where(self, part: str, share: float) -> str:
        """The parameter that asks for it, for errors."""
        return f"prune.sweep.{self.settings.family}: {part}: {share}"


def of_family(by_family: Mapping[str, Any], family: str, name: str) -> Any:
    """The entry of ``family``. Raises StageError where there is none."""
    if family not in by_family:
        raise StageError(f"prune.{name}: the student is of the family {family!r}, and there is no entry for it")
    return by_family[family]


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
    torch.set_num_threads(parent.settings.torch_threads)
    parity_rows = ParityRows.of(parent.valid, parent.schema, settings.parity.slice_rows)
    with track("prune", settings, paths) as tracker:
        table: list[dict[str, Any]] = []
        parities: list[dict[str, float]] = []
        inputs = list(parent.valid.input)
        parent_logits = load_variant(parent.folder, 1).logits(inputs)
        with atomic_write(paths.model("student-pruned")) as temporary:
            temporary.mkdir()
            sweep: list[Shares] = [{}, *of_family(settings.sweep, parent.settings.family, "sweep")]
            recovery = of_family(settings.recovery, parent.settings.family, "recovery")
            for shares in tqdm(sweep, desc="prune", unit=" students"):
                student, figures = parent.pruned(shares, recovery)
                folder = temporary / str(len(table))
                folder.mkdir()
                student.save(folder, parent.settings.opset)
                parity = compare(parent_logits, load_variant(folder, 1).logits(inputs), parity_rows)
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
    run(prune, settings_of("prune"))
