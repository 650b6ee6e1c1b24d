"""Settings of the stages distill, prune and quantize that every kind has; a kind's subclasses add its own."""

from __future__ import annotations

from pydantic import Field

from tasks.compress.distillation import DistillLoss
from tasks.compress.int8 import Operator
from tasks.compress.parity import ParityLimits, ScoreLimits
from tasks.stage import Settings

Shares = dict[str, float]
"""The share to remove of each kind of part, by the kind's names for them."""


class Auto(Settings):
    margin: float = Field(ge=0)
    """Largest loss of PR-AUC on valid; beyond it the next family is tried."""


class Distill(DistillLoss):
    family: str
    """Which family of students; ``auto``: several in turn, until one is close enough to the teacher."""
    auto: Auto
    threads: int = Field(ge=1)
    seed: int = Field(ge=0)
    """Of all random numbers."""
    opset: int
    """Version of the ONNX operator set."""
    export_parity: ScoreLimits
    """The exported model against the trained network."""
    parity: ParityLimits
    """The student against the teacher; what is over a bound is reported, and the rule of choice decides."""

    @property
    def extra_weight(self) -> float:
        """Weight in the loss of an input that was made of another one, where that one has 1."""
        return 1.0

    @property
    def torch_threads(self) -> int:
        """Threads of torch in the training of this family."""
        return self.threads


class Prune(Settings):
    parent: str
    """The folder below models/ that is pruned; its trained network is in the folder beside it, with the suffix -network."""
    sweep: dict[str, list[Shares]]
    """By family: what to try in turn."""
    recovery: dict[str, int]
    """By family: epochs of fine-tuning after pruning."""
    margin: float = Field(ge=0)
    """PR-AUC on valid that it may lose against its parent."""
    parity: ParityLimits
    """The pruned student against its parent: one out of these bounds is not kept."""


class Quantize(Settings):
    parent: str
    """The folder below models/ that is quantized: a student, as the previous step wrote it."""
    method: str
    """dynamic | static, or what the kind adds."""
    operators: list[Operator]
    """For dynamic and static: what is quantized."""
    per_channel: bool
    """For dynamic and static: one scale per output channel of a layer, in place of one per tensor."""
    calibration_inputs: int = Field(ge=1)
    """Inputs of train on which the ranges of activations are measured."""
    seed: int
    """Of the sample of these inputs, and of whatever else is drawn."""
    parity: ParityLimits
