"""From the bytes of an image file to the pixels that a model reads. Training and serving call the very same functions.

An image is turned as its EXIF orientation says, put on white where it is transparent, brought to 8 bits and one or three
channels, and stretched to the model's size by a filter that averages what it shrinks (no aliasing).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.kinds.image_classification.headers import PNG, Unreadable, read_header

Pixels = npt.NDArray[np.uint8]

PIXELS = 2**25
"""Most pixels of an image that is decoded at all, whatever the limits of a release: 100 MB in memory."""
MODES = {1: "L", 3: "RGB"}
"""Pillow's name for images of so many channels."""
_WHITE = (255, 255, 255, 255)
_STORED = 0xFFFF
"""Most bytes of a stored block (RFC 1951, 3.2.4)."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation (EXIF 2.32, 4.6.4)."""


@dataclass(frozen=True)
class Shape:
    """The pixels that a model reads, and how it scales them: ``(value - mean) / std``, one pair for all channels."""

    height: int
    width: int
    channels: int
    mean: int
    """A whole number, so that bytes are quantized values as they are."""
    std: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Shape:
        """Of the block ``image`` of a schema or a release. Raises ValueError for one that no model can read."""
        shape = cls(**settings)
        if not (shape.height > 0 and shape.width > 0 and shape.height * shape.width <= PIXELS):
            raise ValueError(f"image: height = {shape.height}, width = {shape.width}: both from 1 on, {PIXELS} pixels at most")
        if shape.channels not in MODES:
            raise ValueError(f"image: channels = {shape.channels}: 1 (grey) or 3 (colour)")
        if not (0 <= shape.mean <= 255 and shape.std > 0):
            raise ValueError(f"image: mean = {shape.mean}, std = {shape.std}: 0 to 255, and above 0")
        return shape

    @property
    def dimensions(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    def array(self, model_input: bytes) -> Pixels:
        """``uint8[height, width, channels]``, a view of the bytes."""
        return np.frombuffer(model_input, dtype=np.uint8).reshape(self.dimensions)


def decode(raw: bytes) -> tuple[Image.Image, list[str]]:
    """(the image in mode L or RGB, upright; what was converted). Raises Unreadable with the reason.

    Reasons: ``empty``, ``not_png_or_jpeg``, ``animated``, ``too_many_pixels``, ``truncated``, ``broken``.
    """
    header = read_header(raw)
    if header.animated:
        raise Unreadable("animated")
    if header.pixels > PIXELS:
        raise Unreadable("too_many_pixels")
    try:
        with Image.open(io.BytesIO(raw), formats=(header.format,)) as image:
            if image.width * image.height > PIXELS:
                raise Unreadable("too_many_pixels")
            image.load()
            upright, turned = _upright(image)
            flat, conversions = _eight_bits(upright)
    except Unreadable:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, MemoryError, IndexError) as error:
        raise Unreadable("truncated" if "truncated" in str(error) else "broken") from error
    return flat, turned + conversions


def _upright(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if "exif" not in image.info:
        return image, []
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, struct.error):  # broken metadata; the pixels are not
        turn = None
    return (image.transpose(turn), ["turned"]) if turn is not None else (image, [])


def _eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image in mode L or RGB, and what it was before."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return image, []
    if mode.startswith("I"):  # 16 bits; Pillow itself would cut off what is above 255
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)), ["sixteen_bits"]
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), coloured).convert("RGB"), ["transparent"]
    names = {"1": "one_bit", "P": "palette", "CMYK": "cmyk"}
    return image.convert("L" if mode == "1" else "RGB"), [names.get(mode, "other_colours")]


def pixels_of(raw: bytes, shape: Shape) -> bytes:
    """The bytes of ``uint8[height, width, channels]`` of an image file. Raises Unreadable with the reason."""
    image, _ = decode(raw)
    if image.mode != (mode := MODES[shape.channels]):
        image = image.convert(mode)
    if image.size != (size := (shape.width, shape.height)):
        image = image.resize(size, Image.Resampling.BICUBIC)
    return image.tobytes()


def encode_png(pixels: Pixels) -> bytes:
    """``uint8[height, width]``, or with 1 or 3 channels behind, as a PNG file: the same bytes on every machine.

    Pixels are stored, not compressed, since libraries differ in how they compress and an identity is made of these bytes.
    """
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 and pixels.shape[2] == 3 else 0
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # each row: filter 0, none
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(filtered)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def _stored(content: bytes) -> bytes:
    """``content`` as a zlib stream (RFC 1950) of stored blocks."""
    blocks = [b"\x78\x01"]
    for start in range(0, len(content), _STORED):
        block = content[start : start + _STORED]
        last = start + _STORED >= len(content)
        blocks.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join(blocks) + struct.pack(">I", zlib.adler32(content))
