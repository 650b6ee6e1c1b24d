"""Changed copies of images: shifted, mirrored, partly erased. The draws come from one generator, so a seed repeats them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.kinds.image_classification.model.settings import Augment

Pixels = npt.NDArray[np.uint8]


def augmented(images: Pixels, augment: Augment, mean: int, rng: np.random.Generator) -> Pixels:
    """Changed copies of ``uint8[n, height, width, channels]``; ``mean`` is the colour of an erased square."""
    count, height, width, channels = images.shape
    margin = augment.shift
    padded = np.zeros((count, height + 2 * margin, width + 2 * margin, channels), np.uint8)
    padded[:, margin : margin + height, margin : margin + width] = images
    rows, columns = rng.integers(2 * margin + 1, size=(2, count))
    views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    shifted: Pixels = views[np.arange(count), rows, columns].transpose(0, 2, 3, 1)
    changed = np.ascontiguousarray(shifted)
    if augment.mirror:
        mirrored = rng.random(count) < 0.5
        changed[mirrored] = changed[mirrored, :, ::-1]
    if augment.erase:
        _erase(changed, augment, mean, rng)
    return changed


def _erase(images: Pixels, augment: Augment, mean: int, rng: np.random.Generator) -> None:
    """Paint a square in a share of the images, in place; its centre may lie anywhere, so it may be cut off at an edge."""
    count, height, width, _ = images.shape
    half, side = augment.erase_size // 2, augment.erase_size
    chosen = rng.random((count,))
    centres: npt.NDArray[np.int64] = rng.integers([height, width], size=(count, 2))
    for number in np.flatnonzero(chosen < augment.erase):
        top, left = (centres[number] - half).tolist()
        images[number, max(0, top) : top + side, max(0, left) : left + side] = mean
