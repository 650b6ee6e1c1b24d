"""Which parts of a text student can be removed, and by how much."""

from __future__ import annotations

import math
from typing import Any

from tasks.compress.student import Student
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.units import halve_rows, prunables, remove
from tasks.stage import StageError


def remove_share(student: Student, part: str, share: float, parent: Any) -> Student:
    """The student without ``share`` of its parts of this kind: rows (in halves, neighbours merged), dimensions, hidden,
    filters, heads, feed_forward, layers. Raises StageError where that cannot be removed.
    """
    where = parent.where(part, share)
    if part == "rows" and isinstance(student, Hashed):
        halvings = math.log2(1 / (1 - share))
        if halvings != round(halvings) or student.tokenizer.bits - halvings < 4:
            raise StageError(f"{where}: rows go in halves (0.5, 0.75, 0.875, ...), down to 4 bits")
        for _ in range(round(halvings)):
            student = halve_rows(student, parent.train_inputs)
        return student
    if not prunables(student, part) or (parent.settings.family == "linear"):
        raise StageError(f"{where}: a student of the family {parent.settings.family!r} has none of these parts")
    remove(student, part, share, parent.held_out(student), parent.settings)
    return student
