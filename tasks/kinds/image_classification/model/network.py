"""The teacher network: a residual convolutional network with batch normalisation (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from service.kinds.image_classification.images import Shape

N = TypeVar("N", bound=nn.Module)


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut: ``float[n, channels, height, width]`` in and out."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *_normalised(channels, width, 3, stride), nn.ReLU(inplace=True), *_normalised(width, width, 3, 1)
        )
        changes = channels != width or stride > 1
        self.shortcut = nn.Sequential(*_normalised(channels, width, 1, stride)) if changes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.inner(images) + self.shortcut(images))


def _normalised(channels: int, width: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width)


class Residual(nn.Module):
    """Logits of scaled images: ``float[n, channels, height, width]`` -> ``float[n, labels]``."""

    def __init__(
        self, channels: int, labels: int, widths: Sequence[int], blocks: Sequence[int], stride: int, dropout: float
    ) -> None:
        super().__init__()
        self.plan: dict[str, Any] = {
            "channels": channels,
            "labels": labels,
            "widths": list(widths),
            "blocks": list(blocks),
            "stride": stride,
        }
        layers: list[nn.Module] = [*_normalised(channels, widths[0], 3, stride), nn.ReLU(inplace=True)]
        before = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for number in range(count):
                layers.append(Block(before, width, 2 if stage and not number else 1))
                before = width
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(before, labels)

    def pool(self, images: Tensor) -> Tensor:
        """The pooled features ``float[n, widths[-1]]``."""
        pooled: Tensor = self.layers(images).mean(dim=(2, 3))
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(images))


class Mirrored(nn.Module):
    """(logits, pooled features) of scaled images, each the mean over an image and its mirror image.

    Objects look alike from both sides, and the mean of two answers is better than one (test-time augmentation).
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        both: Tensor = self.network.pool(torch.cat([images, images.flip(3)]))
        pooled = both.reshape(2, -1, both.shape[1]).mean(dim=0)
        return self.network.classify(pooled), pooled


class Once(nn.Module):
    """(logits, pooled features) of scaled images."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.network.pool(images)
        return self.network.classify(pooled), pooled


NARROW = 16
"""Output channels below which a convolution keeps the usual order in memory.

With the channels last and an odd number of images, the gradients of narrower ones overwrite foreign memory in torch 2.13's
oneDNN on a CPU with AVX-512: the process crashes, or computes on with what it overwrote.
"""


def channels_last(network: N) -> N:
    """``network`` with its weights in the order in memory in which convolutions on a CPU are fastest, where that is safe."""
    narrow = any(layer.out_channels < NARROW for layer in network.modules() if isinstance(layer, nn.Conv2d))
    order = torch.contiguous_format if narrow else torch.channels_last
    return network.to(memory_format=order)  # type: ignore[call-overload,no-any-return]


def scaled(pixels: Tensor, shape: Shape) -> Tensor:
    """``uint8[n, height, width, channels]`` as ``float[n, channels, height, width]``, in the usual order in memory.

    The weights say in which order a network works; images of one channel, merely permuted, would say that they are of either.
    """
    images = (pixels.float() - shape.mean) / shape.std
    return images.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
