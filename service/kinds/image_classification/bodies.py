"""Request bodies with images: a file, a file in base64, or its pixels as numbers. No error repeats what was sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.kinds.image_classification.headers import JPEG, PNG
from service.kinds.image_classification.images import encode_png
from service.refused import Empty, Refused
from service.requests import JSON, Body, Verdict, parse

FILES = ("image/png", "image/jpeg")
BOTH_OR_NEITHER = 'Send the image either as "image" (a PNG or JPEG file in base64) or as "pixels".'
NO_PIXELS = "pixels: rows of equal length are expected, of whole numbers from 0 to 255 or of [red, green, blue]."


class OneImage(Body):
    expected = 'either "image" or "pixels"'
    image: str | None = None
    pixels: list[Any] | None = None


class ManyImages(Body):
    expected = '"images"'
    images: list[str]


class ImageVerdict(Verdict):
    """A reviewer's label with the classified image."""

    expected = '"id", "label" and either "image" or "pixels"'
    image: str | None = None
    pixels: list[Any] | None = None


def one_image(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    """The image of a body: a file, or JSON. Without a media type its first bytes tell which."""
    if media_type in FILES or (not media_type and body.startswith((PNG, JPEG))):
        return [(body, "The image")]
    if not body.strip():
        raise Empty("The body is empty.")
    content = parse(OneImage, body)
    return [(file_of(content.image, content.pixels, limits), "image" if content.image is not None else "pixels")]


def many_images(body: bytes, media_type: str, limits: Mapping[str, int]) -> list[tuple[Any, str]]:
    """The images of ``{"images": [...]}``, each a file in base64."""
    images = parse(ManyImages, body).images
    if not images:
        raise Empty(f"images holds 0 images; 1 to {limits['batch']} are allowed.")
    if len(images) > limits["batch"]:
        raise Refused(422, f"images holds {len(images)} images; 1 to {limits['batch']} are allowed.")
    return [(from_base64(image, place := f"images.{number}"), place) for number, image in enumerate(images)]


def file_of(image: str | None, pixels: Sequence[Any] | None, limits: Mapping[str, int]) -> bytes:
    """The image file that a body holds, of whichever of the two fields is there. Raises Refused (422)."""
    if image is not None and pixels is None:
        return from_base64(image, "image")
    if pixels is None or image is not None:
        raise Refused(422, BOTH_OR_NEITHER)
    return _png_of(pixels, limits)


def from_base64(text: str, place: str) -> bytes:
    """Raises Refused (422) for what is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"{place}: is not base64.") from None


def _png_of(pixels: Sequence[Any], limits: Mapping[str, int]) -> bytes:
    if not pixels or pixels == [[]]:
        raise Empty("pixels is empty.")
    if len(pixels) > limits["pixels"]:
        raise Refused(422, f"pixels has {len(pixels)} rows; at most {limits['pixels']} pixels are allowed.")
    try:
        values = np.array(pixels)
    except (ValueError, OverflowError):  # rows of different lengths
        raise Refused(422, NO_PIXELS) from None
    is_image = values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
    if not is_image or values.dtype.kind != "i" or not values.size or values.min() < 0 or values.max() > 255:
        raise Refused(422, NO_PIXELS)
    return encode_png(values.astype(np.uint8))


JSON_OR_FILE = (*FILES, *JSON)
