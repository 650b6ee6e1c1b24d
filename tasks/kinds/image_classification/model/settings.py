"""Settings of the stages baseline and train for images."""

from __future__ import annotations

from pydantic import Field

from tasks.model import settings
from tasks.stage import Settings


class Baseline(settings.Baseline):
    gradients: bool
    """Logistic regression reads histograms of oriented gradients beside the pixels."""


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
    model: str | None
    """A folder that transformers loads (ResNet, ConvNeXt, ViT, ...), an installed package with MODEL_DIR, or a name in the
    hub's local cache, to be fine-tuned. null: a new residual network, whose size the next three say."""
    widths: list[int] = Field(min_length=1)
    """Channels of each stage; from the second on a stage halves height and width."""
    blocks: list[int] = Field(min_length=1)
    """Residual blocks of each stage."""
    stride: int = Field(ge=1)
    """Of the first convolution: 2 halves height and width at once, and takes a quarter of the time."""
    dropout: float = Field(ge=0, lt=1)
    """Of the pooled features."""
    augment: Augment
