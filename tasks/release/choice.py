"""Which variant becomes the release: the first, in order of preference, that is good enough beside the teacher.

Good enough is judged on valid, by the difference of PR-AUC to the teacher's on the same rows, resampled by
near-duplicate groups (paired bootstrap). Two things are asked:

1. It is not shown to be worse than ``margin``: the one-sided upper bound of the difference is not below ``-margin``.
   The stricter question, whether it is shown to be as good (the lower bound), no small valid can answer: with 90
   positives the bounds lie wider than any useful margin, and the largest model would win each time, however good the
   small ones are.
2. The measured difference is not below ``-largest_loss``. The fewer the rows, the wider the interval and the less
   the first question refuses; this one does not depend on their number.

The teacher and its export are always good enough: they are what the others are held against. So a list that ends with
the export always has a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from service.decision import Floats
from tasks import metrics
from tasks.stage import Settings, StageError

BASELINE = "baseline"
ENOUGH = 2
"""What is served, and what to fall back to."""


class Choice(Settings):
    """The parameters of the rule."""

    among: list[str] = Field(min_length=1)
    """The folders below models/ that may be served, in order of preference."""
    margin: float = Field(ge=0)
    """So much PR-AUC on valid below the teacher's counts as equal."""
    largest_loss: float = Field(ge=0)
    """So far below the teacher's the measured PR-AUC may be, however wide the interval is."""
    confidence: float = Field(gt=0.5, lt=1)
    """Of each bound of a difference, one-sided."""
    resamples: int = Field(ge=100)
    seed: int


@dataclass(frozen=True)
class Candidate:
    """What the rule says of one variant."""

    variant: str
    difference: float | None
    """PR-AUC on valid less the teacher's; None where there is none, or where nothing was compared."""
    interval: list[float] | None
    """Of the difference; each end is a one-sided bound of the rule's confidence."""
    good: bool
    reason: str

    @property
    def short(self) -> str:
        """The name and what was measured."""
        if self.difference is None or self.interval is None:
            return f"{self.variant} (not measured)"
        low, high = self.interval
        return f"{self.variant} ({self.difference:+.4f} [{low:+.4f}, {high:+.4f}])"


def exported(teacher: str) -> str:
    """The folder of the teacher's export: the same model in ONNX, whose parity the stage export enforces."""
    return f"{teacher}-onnx"


def judge_all(
    settings: Choice,
    logits: Mapping[str, Floats],
    valid: pd.DataFrame,
    teacher: str,
    positive: int | None,
    ask: Callable[[str], Floats],
) -> list[Candidate]:
    """What the rule says of each of ``settings.among``, in their order.

    ``logits`` holds ``[n, labels]`` of each evaluated variant; the index of ``valid`` is the row. ``ask`` gives those of one
    that was not evaluated, and is called only where fewer than two before it are good enough. Raises StageError where none is.
    """
    weights = _weights(settings, valid)
    reference = _pr_auc(logits[teacher], valid, positive, weights)
    found = []
    for name in settings.among:
        if name in (teacher, exported(teacher)):
            found.append(Candidate(name, None, None, True, f"{name} is the teacher itself"))
        elif name not in logits and sum(candidate.good for candidate in found) >= ENOUGH:
            found.append(Candidate(name, None, None, False, f"not measured: {ENOUGH} before it are good enough"))
        else:
            mine = logits[name] if name in logits else ask(name)
            found.append(_judge(name, _pr_auc(mine, valid, positive, weights), reference, settings))
    if not any(candidate.good for candidate in found):
        raise StageError(f"package.among: none is good enough; {exported(teacher)} as the last always is. {told(found)}")
    return found


def better_baseline(
    settings: Choice, logits: Mapping[str, Floats], valid: pd.DataFrame, teacher: str, positive: int | None
) -> str | None:
    """What to say where the baseline is shown to be better than the teacher on valid; None where it is not.

    Then no student is worth its training: the large model has not learned what a linear one reads from simple features.
    """
    if BASELINE not in logits:
        return None
    weights = _weights(settings, valid)
    mine, reference = (_pr_auc(logits[name], valid, positive, weights) for name in (BASELINE, teacher))
    ends = metrics.interval((mine - reference)[1:], 2 * settings.confidence - 1)
    if ends is None or not ends[0] > 0:
        return None
    return (
        f"The baseline is better than the teacher: PR-AUC on valid {mine[0]:.4f}, the teacher's {reference[0]:.4f} "
        f"({mine[0] - reference[0]:+.4f} [{ends[0]:+.4f}, {ends[1]:+.4f}]). Train longer (train.epochs, "
        "train.steps_per_label), or take another teacher."
    )


def _weights(settings: Choice, valid: pd.DataFrame) -> Floats:
    """Bootstrap weights ``[1 + resamples, n]``; the first row is valid as it is."""
    drawn = metrics.bootstrap_weights(valid.group.to_numpy(dtype=str), settings.resamples, settings.seed)
    return np.vstack([np.ones(len(valid)), drawn])


def _pr_auc(logits: Floats, valid: pd.DataFrame, positive: int | None, weights: Floats) -> Floats:
    """PR-AUC (macro average, where no label is positive) for each row of ``weights`` ``[1 + resamples, n]``."""
    labels = valid.label_id.to_numpy()
    return metrics.resampled_ranking(logits[valid.index], labels, weights, positive, recall=1.0)["pr_auc"]


def _judge(name: str, mine: Floats, reference: Floats, settings: Choice) -> Candidate:
    """The verdict on the resampled figures of one variant and of the teacher; their first entry is valid as it is."""
    difference = mine - reference
    ends = metrics.interval(difference[1:], 2 * settings.confidence - 1)  # so much that one side holds ``confidence``
    if ends is None or not np.isfinite(difference[0]):
        return Candidate(name, None, None, False, "valid is too small for its PR-AUC to be compared with the teacher's")
    measured, low, high = (round(float(value), 6) for value in (difference[0], *ends))
    said = f"PR-AUC on valid {mine[0]:.4f}, the teacher's {reference[0]:.4f}: {measured:+.4f} [{low:+.4f}, {high:+.4f}]"
    if high < -settings.margin:
        verdict = f"shown to be worse by more than {settings.margin:g}"
    elif measured < -settings.largest_loss:
        verdict = f"measured worse by more than {settings.largest_loss:g}"
    else:
        return Candidate(name, measured, [low, high], True, f"{said}; not shown to be worse by more than {settings.margin:g}")
    return Candidate(name, measured, [low, high], False, f"{said}; {verdict}")


def order_of(candidates: Sequence[Candidate]) -> list[str]:
    """Those that are good enough: the first is served, the second is what to fall back to."""
    return [candidate.variant for candidate in candidates if candidate.good]


def passed_over(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that come before the first that is good enough."""
    first = [candidate.good for candidate in candidates].index(True)
    return list(candidates[:first])


def told(candidates: Sequence[Candidate]) -> str:
    """Each with its reason, in a line."""
    return "; ".join(f"{candidate.variant}: {candidate.reason}" for candidate in candidates)
