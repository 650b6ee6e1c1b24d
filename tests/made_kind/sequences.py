"""Made data: sequences whose label shows in how often each number occurs, and in no one number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

LABELS = ("alpha", "beta", "gamma")
NUMBERS = 48
CONCENTRATION = 2.0
"""Of the labels' Dirichlet distributions over the numbers: the lower, the less they overlap."""


def write_sequences(path: Path, rows: int, seed: int = 1) -> None:
    """JSON Lines of id, label and sequence: 8 to 24 numbers drawn from the label's own distribution."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(NUMBERS, CONCENTRATION), size=len(LABELS))
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            label = int(rng.integers(len(LABELS)))
            sequence = rng.choice(NUMBERS, size=rng.integers(8, 25), p=shares[label]).tolist()
            file.write(json.dumps({"id": f"row-{number}", "label": LABELS[label], "sequence": sequence}) + "\n")
