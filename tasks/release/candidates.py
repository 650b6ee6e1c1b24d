"""What may become the release: what the rule says of each, and its figures, also of those that evaluate leaves out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.decision import positive_index
from tasks.model.variants import load_variant
from tasks.release.choice import Candidate, Choice, better_baseline, judge_all
from tasks.release.evaluate import Evaluate, judge
from tasks.release.scores import read_scores
from tasks.release.teacher_comparison import kept
from tasks.stage import Paths, StageError


@dataclass
class LateEvaluation:
    """Evaluation of variants that evaluate left out, as they are seldom needed: on valid alone, and only when asked for."""

    rows: pd.DataFrame
    """The judged rows."""
    schema: dict[str, Any]
    settings: Evaluate
    paths: Paths
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By variant: what evaluate's report would say of it, for valid, without its time."""

    def ask(self, name: str) -> npt.NDArray[np.float32]:
        """Logits ``[n, labels]`` of the judged rows; NaN but for valid's. Raises StageError where there is no such variant."""
        folder, valid = self.paths.model(name), self.rows[self.rows.split == "valid"]
        if not (folder / "variant.json").exists():
            raise StageError(f"package.among: {name!r}: neither evaluated, nor a folder of models/")
        print(f"{name} is evaluated on valid, as too few before it are good enough", flush=True)
        variant = load_variant(folder, self.settings.threads)
        logits = np.full((len(self.rows), len(self.schema["labels"])), np.nan, np.float32)
        logits[valid.index] = variant.logits(list(valid.input))
        positive = positive_index(self.schema)
        self.entries[name] = {"parameters": variant.parameters} | judge(
            logits, {"valid": valid}, positive, folder, self.settings
        )
        return logits


def choose(settings: Choice, late: LateEvaluation, evaluation: dict[str, Any]) -> tuple[list[Candidate], str | None]:
    """(what the rule says of each of ``among``, what ``better_baseline`` says).

    Raises StageError as ``judge_all`` does.
    """
    valid = late.rows[late.rows.split == "valid"]
    judged_by = (settings, read_scores(late.rows, late.paths), valid, evaluation["teacher"], positive_index(late.schema))
    return judge_all(*judged_by, late.ask), better_baseline(*judged_by)


def entry_of(name: str, evaluation: dict[str, Any], late: LateEvaluation, size: int) -> dict[str, Any]:
    """A variant's entry in the evaluation.

    The teacher's export, where it was not evaluated on its own, has the teacher's figures, threshold and temperature,
    and ``size`` bytes of its own; its time is not known.
    """
    variants, teacher = evaluation["variants"] | late.entries, evaluation["teacher"]
    if name in variants:
        return dict(variants[name])
    return {key: value for key, value in variants[teacher].items() if key != "latency_us"} | {"bytes": size}


def against(name: str, entry: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """A variant with this ``entry`` beside the teacher. Of one that was not evaluated the time is not known."""
    reference = evaluation["variants"][evaluation["teacher"]]
    if name in evaluation["variants"]:
        return dict(evaluation["against_teacher"][name])
    return {
        "times_smaller": round(reference["bytes"] / entry["bytes"], 2),
        "times_faster": None,
        "kept": kept(entry, reference),
    }
