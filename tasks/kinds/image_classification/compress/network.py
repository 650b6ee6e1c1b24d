"""The student network: a small convolutional network, with full or with depthwise separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Keep = Tensor
"""Numbers of the filters that stay, ``int64[kept]``."""


class Convolutional(nn.Module):
    """Logits of scaled images: ``float[n, channels, height, width]`` -> ``float[n, labels]``.

    A convolution of ``kernel`` x ``kernel``, then for each further width one of 3 x 3; ``separable`` ones are cut into one
    that looks at each channel by itself, and one of 1 x 1 that mixes them (Howard et al. 2017).
    """

    def __init__(
        self,
        channels: int,
        labels: int,
        kernel: int,
        widths: Sequence[int],
        strides: Sequence[int],
        separable: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.channels, self.labels, self.kernel = channels, labels, kernel
        self.widths, self.strides, self.separable = list(widths), list(strides), separable
        layers = _normalised(nn.Conv2d(channels, widths[0], kernel, strides[0], kernel // 2, bias=False))
        for before, width, stride in zip(widths, widths[1:], strides[1:], strict=False):
            if separable:
                layers += _normalised(nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False))
                layers += _normalised(nn.Conv2d(before, width, 1, bias=False))
            else:
                layers += _normalised(nn.Conv2d(before, width, 3, stride, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], labels)

    def pool(self, images: Tensor) -> Tensor:
        """The pooled features ``float[n, widths[-1]]``."""
        pooled: Tensor = self.average(self.layers(images)).flatten(1)
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(images))

    def mixing(self) -> list[nn.BatchNorm2d]:
        """The normalisation of each width's filters: what goes with them when they are removed."""
        normalisations = [layer for layer in self.layers if isinstance(layer, nn.BatchNorm2d)]
        return normalisations[::2] if self.separable else normalisations

    def narrowed(self, keep: Sequence[Keep]) -> Convolutional:
        """A copy with these filters of each width only."""
        smaller = Convolutional(
            self.channels, self.labels, self.kernel, [len(kept) for kept in keep], self.strides, self.separable, self.dropout.p
        )
        before, remaining = torch.arange(self.channels), iter(keep)
        with torch.no_grad():
            for old, new in zip(self.layers, smaller.layers, strict=True):
                if isinstance(old, nn.Conv2d) and isinstance(new, nn.Conv2d):
                    if old.groups > 1:
                        new.weight.copy_(old.weight[before])
                        continue
                    kept = next(remaining)
                    new.weight.copy_(old.weight[kept][:, before])
                    before = kept
                elif isinstance(old, nn.BatchNorm2d) and isinstance(new, nn.BatchNorm2d):
                    new.load_state_dict(
                        {name: value[before] if value.ndim else value for name, value in old.state_dict().items()}
                    )
            smaller.head.weight.copy_(self.head.weight[:, before])
            smaller.head.bias.copy_(self.head.bias)
        return smaller


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]
