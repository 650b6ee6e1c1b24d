"""Images of the corpus as the model reads them, made by the serving half's own functions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from service.kinds.image_classification.headers import Unreadable, read_header
from service.kinds.image_classification.images import MODES, Shape, pixels_of
from tasks.kinds import Prepared
from tasks.kinds.image_classification.data.settings import Prepare


def prepare_inputs(rows: pd.DataFrame, settings: Prepare) -> Prepared:
    """The files as they are, and their pixels; the counts say how many were stretched. Raises ValueError."""
    shape = Shape.of(serving_settings(settings)["image"])
    raws = list(rows.image)
    inputs: list[bytes] = []
    reasons: list[str | None] = []
    resized = 0
    for raw in raws:
        try:
            inputs.append(pixels_of(raw, shape))
            header = read_header(raw)
            resized += (header.height, header.width) != (shape.height, shape.width)
            reasons.append(None)
        except Unreadable as error:
            inputs.append(b"")
            reasons.append(str(error))
    return Prepared(raws, inputs, reasons, {"resized": resized})


def serving_settings(settings: Prepare) -> dict[str, Any]:
    """The size of the model's images and how they are scaled."""
    return {"image": settings.image.model_dump()}


def fingerprint(model_input: bytes, settings: Prepare) -> set[bytes]:
    """The edges of the image averaged to ``grid`` fields a side: each with its place, direction and sign.

    A difference hash (Krawetz 2013) in form of a set: copies that are compressed, brighter or darker share most of it. Fields
    that hardly differ, as in a plain background, which all images share, are left out.
    """
    image, near = settings.image, settings.near_duplicates
    grey = Image.frombytes(MODES[image.channels], (image.width, image.height), model_input).convert("L")
    fields = np.asarray(grey.resize((near.grid, near.grid), Image.Resampling.BOX), dtype=np.int16)
    across, down = np.diff(fields, axis=1).ravel(), np.diff(fields, axis=0).ravel()
    differences = np.concatenate([across, -across, down, -down])
    return set(map(_names(4 * across.size).__getitem__, np.flatnonzero(differences >= near.step))) or {b"plain"}


@lru_cache(maxsize=1)
def _names(count: int) -> list[bytes]:
    """A name for each of ``count`` edges: making them anew for each image would take most of the time."""
    return [number.to_bytes(4, "little") for number in range(count)]
