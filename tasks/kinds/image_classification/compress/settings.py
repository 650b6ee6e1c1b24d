"""Settings of the stages distill, prune and quantize for images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.compress import settings
from tasks.compress.sgd import Sgd
from tasks.kinds.image_classification.model.settings import Augment
from tasks.stage import Settings


class Cnn(Settings):
    kernel: int = Field(ge=1)
    """Side of the first convolution, in pixels; the others have 3."""
    widths: list[int] = Field(min_length=1)
    """Filters of each convolution."""
    strides: list[int] = Field(min_length=1)
    """Of each convolution: 2 halves height and width."""
    dropout: float = Field(ge=0, lt=1)
    sgd: Sgd


class Copies(Settings):
    """Changed copies of training images, which the teacher labels."""

    count: int = Field(ge=0)
    """Of each image."""
    weight: float = Field(gt=0)
    """Weight of a copy in the loss, where an image itself has 1."""
    augment: Augment


class Distill(settings.Distill):
    family: Literal["auto", "dscnn", "cnn"]
    """Which of the two blocks below is used; ``auto``: dscnn, then cnn."""
    dscnn: Cnn
    """Depthwise separable convolutions: fewer weights and products."""
    cnn: Cnn
    """Full convolutions: the faster ones in int8, where a processor has dot products of bytes."""
    mirror: bool
    """Each image is mirrored in half of the steps; the teacher answers both alike if it has ``train.augment.mirror``."""
    copies: Copies

    @property
    def extra_weight(self) -> float:
        return self.copies.weight

    @property
    def cnn_of_family(self) -> Cnn:
        return self.dscnn if self.family == "dscnn" else self.cnn


class Prune(settings.Prune):
    """The one part that goes is ``filters``."""


class Quantize(settings.Quantize):
    method: Literal["dynamic", "static"]
