"""Image classification, its release part: probe images, and what the card says (``tasks.kinds.ReleasePart``)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from service.kinds.image_classification.headers import PNG, read_header
from service.kinds.image_classification.images import Pixels, encode_png
from tasks.release import settings
from tasks.stage import StageError

TASK = "image classification into {labels}"
COARSE = 5
"""Fields a side of the random pattern that a probe is enlarged from: shapes, not noise, reach all filters."""


class ServingLimits(settings.ServingLimits):
    pixels: int
    """Most pixels of an image as sent."""


class Package(settings.Package):
    limits: ServingLimits


def probes(rows: pd.DataFrame, settings: Package) -> list[bytes]:
    """Smooth random patterns with the size, the mean and the contrast of the rows' images; none is made of a row.

    Raises StageError where there is no row.
    """
    if not len(rows):
        raise StageError("there is no image whose size a probe could have")
    header, pixels = read_header(rows.raw.iloc[0]), np.frombuffer(b"".join(rows.input), dtype=np.uint8)
    mean, deviation, rng = float(pixels.mean()), float(pixels.std()), np.random.default_rng(settings.seed)
    channels = 3 if _is_colour(rows.raw.iloc[0]) else 1
    return [encode_png(_pattern(header.width, header.height, channels, mean, deviation, rng)) for _ in range(settings.probes)]


def _is_colour(raw: bytes) -> bool:
    """Whether a file is not plainly grey; the third of a PNG's header bytes is its colour type."""
    return not raw.startswith(PNG) or raw[25] != 0


def _pattern(width: int, height: int, channels: int, mean: float, deviation: float, rng: np.random.Generator) -> Pixels:
    values = np.clip(mean + deviation * rng.standard_normal((COARSE, COARSE, channels)), 0, 255).astype(np.uint8)
    small = Image.fromarray(values[:, :, 0] if channels == 1 else values)
    enlarged: Pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return enlarged


def show(raw: bytes) -> dict[str, str]:
    media_type = "image/png" if raw.startswith(PNG) else "image/jpeg"
    return {"image": f"data:{media_type};base64,{base64.b64encode(raw).decode('ascii')}"}


def cautions(schema: Mapping[str, Any]) -> list[str]:
    image = schema["image"]
    colours = "in grey" if image["channels"] == 1 else "in colour"
    return [
        f"It reads every image as {image['width']} x {image['height']} pixels {colours}, stretched to that whatever its shape.",
        "It answers with one of its labels for any image, also for one that shows none of them.",
    ]
