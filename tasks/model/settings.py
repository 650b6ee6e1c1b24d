"""Settings of the stages baseline and train that every kind has; a kind's subclasses add its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.stage import Settings


class Baseline(Settings):
    C: list[float]
    """Inverse regularisation strengths to try, as scikit-learn names them; the best on valid is kept."""
    max_iter: int = Field(ge=1)
    """Iterations of L-BFGS at most."""


class Train(Settings):
    epochs: int = Field(ge=1)
    """At least; see ``steps_per_label``."""
    steps_per_label: int = Field(ge=0)
    """Batches that each label is worth: where ``epochs`` hold fewer, there are more of them."""
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    """Batches per optimizer step: their gradients are accumulated."""
    learning_rate: float = Field(gt=0)
    """The peak."""
    warmup_share: float = Field(ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0 to its peak."""
    weight_decay: float
    evaluate_every: float = Field(gt=0)
    """In epochs."""
    patience: int = Field(ge=1)
    """Evaluations on valid without a better macro PR-AUC before training stops."""
    precision: Literal["auto", "float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]
    threads: int | None
    """Threads of torch; null: one per core. The last bits of the weights depend on it."""
    seed: int
