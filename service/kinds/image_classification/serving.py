"""Serving half of image classification: PNG and JPEG files in, pixels of one size for the model.

A raw input is the bytes of an image file as sent. The model's input is the bytes of ``uint8[height, width, channels]``.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from service.kinds import Model, Reviewed, Route
from service.kinds.image_classification import descriptors
from service.kinds.image_classification.bodies import JSON_OR_FILE, ImageVerdict, file_of, many_images, one_image
from service.kinds.image_classification.headers import Unreadable, read_header
from service.kinds.image_classification.images import PIXELS, Shape, decode, pixels_of
from service.kinds.image_classification.network import Network
from service.refused import Empty, Refused
from service.requests import JSON, Verdict

UNREADABLE = {"not_png_or_jpeg": "is neither a PNG nor a JPEG file", "broken": "is broken"}


class Serving:
    """Image classification as ``service.kinds`` describes it."""

    descriptors: ClassVar[tuple[str, ...]] = descriptors.NAMES
    routes: ClassVar[Mapping[str, Route]] = {
        "/classify": Route(JSON_OR_FILE, one_image),
        "/classify_batch": Route(JSON, many_images, many=True),
    }
    formats: ClassVar[Mapping[str, Collection[str]]] = {"onnx": ()}
    requires: ClassVar[Collection[str]] = ("pillow",)
    verdict: ClassVar[type[Verdict]] = ImageVerdict

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.shape = Shape.of(settings["image"])

    @staticmethod
    def load(folder: Path, threads: int) -> Network:
        return Network(folder, threads)

    def raw_of(self, content: Mapping[str, Any]) -> bytes:
        image: bytes = content["image"]
        return image

    def check(self, raw: bytes, limits: Mapping[str, int], place: str) -> None:
        """By the header alone; what only decoding shows, ``preprocess`` finds."""
        if not raw:
            raise Empty(f"{place} is empty.")
        try:
            header = read_header(raw)
        except Unreadable as error:
            raise Refused(422, f"{place} {UNREADABLE[str(error)]}.") from None
        if header.animated:
            raise Refused(422, f"{place} is animated; send a single picture.")
        if header.pixels > (most := min(limits["pixels"], PIXELS)):
            raise Refused(422, f"{place} has {header.width} x {header.height} pixels; at most {most} are allowed.")

    def preprocess(self, raw: bytes) -> bytes:
        try:
            return pixels_of(raw, self.shape)
        except Unreadable:
            return b""

    def is_truncated(self, model_input: bytes) -> bool:
        """An image is read whole, or not at all."""
        return False

    def describe(self, raw: bytes, model_input: bytes, model: Model) -> dict[str, float]:
        header = read_header(raw)
        return descriptors.describe(self.shape.array(model_input), header.width, header.height)

    def identity(self, raw: bytes) -> bytes:
        """The file itself; pixels sent as numbers are always written as the same file."""
        return raw

    def recorded(self, limits: Mapping[str, int]) -> dict[str, Any]:
        return {}

    def review(self, verdict: ImageVerdict, answered: Mapping[str, Any], limits: Mapping[str, int]) -> Reviewed:
        raw = file_of(verdict.image, verdict.pixels, limits)
        self.check(raw, limits, "image" if verdict.image is not None else "pixels")
        return Reviewed(raw, {"image": self.to_json(raw)}, None)

    def to_json(self, raw: bytes) -> str:
        return base64.b64encode(raw).decode("ascii")

    def from_json(self, value: str) -> bytes:
        return base64.b64decode(value)

    def warm_up(self, probes: Sequence[bytes]) -> Sequence[bytes]:
        """The probe as it is, and as a transparent PNG and a JPEG of another size: all decoders and conversions run."""
        image = decode(probes[0])[0]
        larger = image.resize((2 * image.width, 2 * image.height))
        return [probes[0], _file(larger.convert("RGBA"), "PNG"), _file(larger.convert("RGB"), "JPEG")]


def _file(image: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()
