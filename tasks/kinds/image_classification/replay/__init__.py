"""Image classification, its replay part: changes of the traffic that a monitor must see (``tasks.kinds.ReplayPart``)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from service.kinds.image_classification.images import decode, encode_png

NOISE = 40.0
"""Standard deviation of the noise, of 255."""
BLUR = 1.5
"""Radius of the blur, in pixels of an image of 28; it grows with the image."""
BRIGHTER = 70
TURN = 40
"""Largest angle, in degrees."""


def _changed(change: Callable[[Image.Image, np.random.Generator], Any]) -> Callable[[bytes, np.random.Generator], bytes]:
    """``change`` of a decoded image as one of its file."""
    return lambda raw, rng: encode_png(np.asarray(change(decode(raw)[0], rng), dtype=np.uint8))


def _noisy(image: Image.Image, rng: np.random.Generator) -> Any:
    values = np.asarray(image, dtype=np.float64)
    return np.clip(values + rng.normal(0, NOISE, values.shape), 0, 255)


def _blurred(image: Image.Image, rng: np.random.Generator) -> Any:
    return image.filter(ImageFilter.GaussianBlur(BLUR * min(image.size) / 28))


def _brighter(image: Image.Image, rng: np.random.Generator) -> Any:
    return np.minimum(np.asarray(image, dtype=np.int16) + BRIGHTER, 255)


def _rotated(image: Image.Image, rng: np.random.Generator) -> Any:
    return image.rotate(float(rng.uniform(-TURN, TURN)), Image.Resampling.BILINEAR)


def _inverted(image: Image.Image, rng: np.random.Generator) -> Any:
    return 255 - np.asarray(image)


CHANGES: Mapping[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "noisy": _changed(_noisy),
    "blurred": _changed(_blurred),
    "brighter": _changed(_brighter),
    "rotated": _changed(_rotated),
    "inverted": _changed(_inverted),
}


def as_request(raw: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(raw).decode("ascii")}


def ingest_table(path: str) -> dict[str, Any]:
    return {"source": "table", "path": path, "label_names": None, "label_table": None}
