"""What is left of a run: each stage's usual seconds (``meta.seconds`` of dvc.yaml), at the pace of the stages that ran."""

from __future__ import annotations

from collections.abc import Sequence

from flows.graph import Node

WEIGHT = 30.0
"""Seconds of a usual pace that the first stages are weighed against: they are short, and most of them is the start."""


class Pace:
    """How fast stages run here, and what those that are left will take."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._left = {node.name: node.seconds for node in nodes}
        self._usual = self._taken = WEIGHT

    def ran(self, name: str, seconds: float) -> None:
        """Stage ``name`` has ended after ``seconds``."""
        usual = self._left.pop(name)
        if usual is not None:
            self._usual += usual
            self._taken += seconds

    def skipped(self, name: str) -> None:
        """Stage ``name`` had nothing to do, which says nothing of the pace."""
        del self._left[name]

    def left(self) -> str:
        """As ``up to 4 min left``, since what has not changed takes no time; empty where a stage's time is not known."""
        usual = list(self._left.values())
        if any(seconds is None for seconds in usual):
            return ""
        seconds = sum(filter(None, usual)) * self._taken / self._usual
        return f"up to {round(seconds / 60)} min left" if seconds >= 90 else f"up to {max(10, round(seconds, -1)):.0f} s left"
