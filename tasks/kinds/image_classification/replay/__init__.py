"""Image classification, its replay part: changes of the traffic that a monitor must see (``tasks.kinds.ReplayPart``)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

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


def _letter(image: Image.Image, rng: np.random.Generator) -> Any:
    """A capital letter, larger or smaller and not quite upright, in place of the image."""
    drawn = Image.new("L", image.size)
    centre, size = (image.width / 2, image.height / 2), min(image.size) * rng.uniform(0.6, 1.0)
    letter = chr(ord("A") + int(rng.integers(26)))
    ImageDraw.Draw(drawn).text(centre, letter, fill=255, font=ImageFont.load_default(size), anchor="mm")
    return drawn.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR).convert(image.mode)


CHANGES: Mapping[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "noisy": _changed(_noisy),
    "blurred": _changed(_blurred),
    "brighter": _changed(_brighter),
    "rotated": _changed(_rotated),
    "inverted": _changed(_inverted),
    "of an unseen class": _changed(_letter),
}


def as_request(raw: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(raw).decode("ascii")}


def as_content(raw: bytes) -> dict[str, bytes]:
    return {"image": raw}


def ingest_table(path: str) -> dict[str, Any]:
    return {"source": "table", "path": path, "label_names": None, "label_table": None}
