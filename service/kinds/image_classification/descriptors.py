"""Descriptors of an image: a few numbers that do not show it, safe to store and to monitor for drift."""

from __future__ import annotations

import numpy as np

from service.kinds.image_classification.images import Pixels

NAMES = (
    "brightness",
    "contrast",
    "edges",
    "entropy",
    "dark_share",
    "bright_share",
    "saturation",
    "width",
    "height",
)

_DARK, _BRIGHT = 32, 224
"""Values below the one are dark, from the other on bright."""
_LARGEST = 255.0


def describe(pixels: Pixels, width: int, height: int) -> dict[str, float]:
    """The descriptors of ``uint8[height, width, channels]`` as the model reads them, and the size of the image as sent.

    ``brightness``, ``contrast`` (standard deviation) and ``edges`` (mean absolute difference of neighbours, both ways) are
    shares of the largest value; ``entropy`` is of the histogram of grey values, in bits, 0 to 8; ``saturation`` is the mean
    of (largest - smallest) / largest channel, 0 for grey.
    """
    grey = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels.mean(axis=2).astype(np.uint8)
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.arange(256)
    mean = float(counts @ values) / grey.size
    variance = max(0.0, float(counts @ (values * values)) / grey.size - mean * mean)
    shares = counts[counts > 0] / grey.size
    return {
        "brightness": mean / _LARGEST,
        "contrast": variance**0.5 / _LARGEST,
        "edges": _edges(grey) / _LARGEST,
        "entropy": max(0.0, -float(shares @ np.log2(shares))),
        "dark_share": float(counts[:_DARK].sum()) / grey.size,
        "bright_share": float(counts[_BRIGHT:].sum()) / grey.size,
        "saturation": _saturation(pixels),
        "width": float(width),
        "height": float(height),
    }


def _edges(grey: Pixels) -> float:
    signed = grey.astype(np.int16)
    differences = np.abs(signed[:, 1:] - signed[:, :-1]), np.abs(signed[1:] - signed[:-1])
    total, count = sum(int(part.sum()) for part in differences), sum(part.size for part in differences)
    return float(total / max(1, count))


def _saturation(pixels: Pixels) -> float:
    if pixels.shape[2] == 1:
        return 0.0
    largest, smallest = pixels.max(axis=2).astype(np.float32), pixels.min(axis=2)
    return float(((largest - smallest) / np.maximum(largest, 1)).mean())
