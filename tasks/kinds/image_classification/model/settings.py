"""Settings of the stages baseline and train for images."""

from __future__ import annotations

from pydantic import Field

from tasks.model import settings
from tasks.stage import Settings


class Baseline(settings.Baseline):
    """Logistic regression on pixels; it has no settings of its own."""


class Augment(Settings):
    """How a training image is changed anew in each epoch."""

    shift: int = Field(ge=0)
    """Largest shift in pixels, each way; what comes in is black."""
    mirror: bool
    """Left and right are exchanged in half of the images. The teacher then also answers the mean over both."""
    erase: float = Field(ge=0, le=1)
    """Share of the images of which one square is painted in the mean colour (random erasing, Zhong et al. 2020)."""
    erase_size: int = Field(ge=1)
    """Side of that square, in pixels."""


class Train(settings.Train):
    widths: list[int] = Field(min_length=1)
    """Channels of each stage; from the second on a stage halves height and width."""
    blocks: list[int] = Field(min_length=1)
    """Residual blocks of each stage."""
    stride: int = Field(ge=1)
    """Of the first convolution: 2 halves height and width at once, and takes a quarter of the time."""
    dropout: float = Field(ge=0, lt=1)
    augment: Augment
