"""Image files as the service and training read them: every sort of file, and what no sort of file may do."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.kinds.image_classification.descriptors import NAMES, describe
from service.kinds.image_classification.headers import Unreadable, read_header
from service.kinds.image_classification.images import Shape, decode, encode_png, pixels_of

GREY = Shape(28, 28, 1, 73, 90.0)
COLOUR = Shape(16, 20, 3, 100, 60.0)


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gradient(mode: str = "L", size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size[1], size[0])
    return Image.fromarray(values).convert(mode)


def animation() -> bytes:
    return file_of(gradient(), "PNG", save_all=True, append_images=[gradient("L").rotate(90)], duration=10)


def bomb() -> bytes:
    """A PNG of 240 bytes that declares 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sixteen_bits() -> bytes:
    return file_of(Image.fromarray(np.asarray(gradient()).astype(np.uint16) * 257))


def with_spoiled_pixels() -> bytes:
    raw = bytearray(encode_png(np.asarray(gradient())))
    raw[60:90] = bytes(30)
    return bytes(raw)


BAD = {
    "empty": b"",
    "not_png_or_jpeg": b"GIF89a\x01\x00\x01\x00",
    "animated": animation(),
    "too_many_pixels": bomb(),
    "truncated": file_of(gradient("RGB", (300, 200)), "JPEG")[:-200],
    "broken": with_spoiled_pixels(),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_image_has_a_reason(reason: str) -> None:
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        pixels_of(BAD[reason], GREY)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_file_cut_anywhere_is_unreadable_or_an_image_and_never_another_error(file_format: str) -> None:
    raw = file_of(gradient("RGB"), file_format)
    for end in range(0, len(raw), 7):
        try:
            assert len(pixels_of(raw[:end], COLOUR)) == 16 * 20 * 3
        except Unreadable as error:
            assert str(error) in BAD


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b""]))
def test_any_bytes_are_unreadable_and_never_another_error(rest: bytes, magic: bytes) -> None:
    with pytest.raises(Unreadable):
        pixels_of(magic + rest, GREY)


@pytest.mark.parametrize(
    ("raw", "conversions"),
    [
        (file_of(gradient("L")), []),
        (file_of(gradient("RGB")), []),
        (file_of(gradient("1")), ["one_bit"]),
        (file_of(gradient("P")), ["palette"]),
        (file_of(gradient("CMYK"), "JPEG"), ["cmyk"]),
        (file_of(gradient("LA")), ["transparent"]),
        (file_of(gradient("RGBA")), ["transparent"]),
        (sixteen_bits(), ["sixteen_bits"]),
        (file_of(gradient(), "JPEG", exif=(exif := Image.Exif())), []),
    ],
)
def test_every_sort_of_pixel_becomes_grey_or_colour_of_eight_bits(raw: bytes, conversions: list[str]) -> None:
    image, found = decode(raw)
    assert image.mode in ("L", "RGB")
    assert found == conversions
    assert len(pixels_of(raw, GREY)) == 28 * 28
    assert len(pixels_of(raw, COLOUR)) == 16 * 20 * 3


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    assert pixels_of(sixteen_bits(), GREY) == pixels_of(file_of(gradient()), GREY)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (28, 28), (10, 20, 30, 0))
    assert set(pixels_of(file_of(clear), GREY)) == {255}


def test_an_image_is_turned_as_its_file_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = file_of(gradient(), "JPEG", exif=exif, quality=95)
    image, conversions = decode(raw)
    assert (image.size, conversions) == ((30, 40), ["turned"])
    assert (read_header(raw).width, read_header(raw).height) == (40, 30)


def test_broken_metadata_spoils_no_pixel() -> None:
    raw = file_of(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert pixels_of(raw, GREY) == pixels_of(file_of(gradient(), "JPEG"), GREY)


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 5, 3), (300, 400)])
def test_pixels_written_as_png_are_read_as_they_were(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    raw = encode_png(values)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(raw))), values)
    assert (read_header(raw).height, read_header(raw).width) == shape[:2]
    same = Shape(shape[0], shape[1], 3 if len(shape) == 3 else 1, 0, 1.0)
    assert pixels_of(raw, same) == values.tobytes()


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_descriptors_are_finite_and_within_their_bounds(shape: Shape) -> None:
    rng = np.random.default_rng(1)
    flat = [np.full(shape.dimensions, value, np.uint8) for value in (0, 255)]
    for pixels in [*flat, *rng.integers(0, 256, (20, *shape.dimensions), dtype=np.uint8)]:
        found = describe(pixels, 9, 7)
        assert tuple(found) == NAMES
        assert all(math.isfinite(value) and value >= 0 for value in found.values())
        assert found["entropy"] <= 8
        assert all(found[name] <= 1 for name in NAMES if name not in ("entropy", "width", "height"))
    assert (found["width"], found["height"]) == (9, 7)


@pytest.mark.parametrize("change", [{"height": 0}, {"channels": 4}, {"mean": 300}, {"std": 0.0}, {"width": 10**9}])
def test_settings_that_no_model_can_read_are_an_error_that_names_them(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"image: .*{next(iter(change))}"):
        Shape.of({"height": 28, "width": 28, "channels": 1, "mean": 73, "std": 90.0} | change)
