"""Where two variants answer differently: how often, who is right, and the rows on which both are surest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from service.decision import Floats, decide, softmax

RIGHT = ("teacher", "student", "neither")


@dataclass(frozen=True)
class Verdicts:
    """What one variant says of some rows, each array ``[n]``."""

    answers: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    """Calibrated probability of the positive label; of the label answered, where none is named."""
    sureness: npt.NDArray[np.float64]
    """How far the score is from another answer: from the threshold, or from the second label's score."""

    def at(self, place: int, labels: Sequence[str]) -> dict[str, Any]:
        """Answer and score of one row."""
        return {"answer": labels[self.answers[place]], "score": float(self.scores[place])}


def verdicts(logits: Floats, chosen: Mapping[str, float], positive: int | None) -> Verdicts:
    """What a variant says at the temperature and threshold ``chosen`` on valid."""
    probabilities = softmax(logits, chosen["temperature"])
    answers = decide(probabilities, positive, chosen["threshold"])
    if positive is not None:
        scores = probabilities[:, positive]
        return Verdicts(answers, scores, np.abs(scores - chosen["threshold"]))
    ordered = np.sort(probabilities, axis=1)
    return Verdicts(answers, ordered[:, -1], ordered[:, -1] - ordered[:, -2])


def who_is_right(labels: npt.NDArray[np.integer], teacher: Verdicts, student: Verdicts) -> npt.NDArray[np.str_]:
    """One of ``RIGHT`` for each row that the two answer differently, nothing for the others."""
    right = np.select([teacher.answers == labels, student.answers == labels], RIGHT[:2], default=RIGHT[2])
    return np.where(teacher.answers == student.answers, "", right)


def count(right: npt.NDArray[np.str_]) -> dict[str, int]:
    """How many of one split's rows the two answer differently, and who is right how often."""
    found = {f"{name}_right": int((right == name).sum()) for name in RIGHT}
    return {"rows": len(right), "disagree": int((right != "").sum()), **found}


def surest(right: npt.NDArray[np.str_], teacher: Verdicts, student: Verdicts, most: int) -> list[int]:
    """The places of at most so many disagreements for each of ``RIGHT``: those first of which both are surest."""
    both = np.minimum(teacher.sureness, student.sureness)  # as sure as the less sure of the two
    order = np.argsort(-both, kind="stable")
    return [int(place) for name in RIGHT for place in order[right[order] == name][:most]]


def told(row: Any, right: str, teacher: Mapping[str, Any], student: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of one row: which it is, who says what, and who is right."""
    received = "-" if pd.isna(row.received) else row.received.strftime("%Y-%m-%d %H:%M")
    facts = {"id": row.id, "source": row.source, "received": received, "label": row.label, "right": str(right)}
    return facts | {"teacher": teacher, "student": student}
