"""The header of a PNG or JPEG file: format, size, and whether it moves, without decoding a pixel.

A file of a hundred bytes may declare billions of pixels, so size is checked before any library sees the file. PNG: W3C
Recommendation, third edition. JPEG: ITU-T T.81, annex B.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"

_CHUNKS = 1000
"""Chunks of a PNG, or segments of a JPEG, that are looked at: a real file has a dozen before its pixels."""
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frame header (SOF0 to SOF15); the three left out are tables."""
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length behind them."""


class Unreadable(ValueError):
    """An image that cannot be read; its message is the reason, one word."""


@dataclass(frozen=True)
class Header:
    format: str
    """PNG or JPEG."""
    width: int
    height: int
    """As stored: an orientation that the file declares may swap them."""
    animated: bool

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(raw: bytes) -> Header:
    """The header of an image. Raises Unreadable: ``empty``, ``not_png_or_jpeg`` or ``broken``."""
    if not raw:
        raise Unreadable("empty")
    try:
        if raw.startswith(PNG):
            header = _png(raw)
        elif raw.startswith(JPEG):
            header = _jpeg(raw)
        else:
            raise Unreadable("not_png_or_jpeg")
    except (struct.error, IndexError) as error:
        raise Unreadable("broken") from error
    if not header.pixels:
        raise Unreadable("broken")
    return header


def _png(raw: bytes) -> Header:
    """The first chunk has the size; an animated PNG has a chunk ``acTL`` before its pixels, with the number of frames."""
    if raw[12:16] != b"IHDR":
        raise Unreadable("broken")
    width, height = struct.unpack_from(">II", raw, 16)
    place, animated = 8, False
    for _ in range(_CHUNKS):
        length, name = struct.unpack_from(">I4s", raw, place)
        if name == b"IDAT":
            break
        animated = animated or (name == b"acTL" and struct.unpack_from(">I", raw, place + 8)[0] > 1)
        place += length + 12
    return Header("PNG", width, height, animated)


def _jpeg(raw: bytes) -> Header:
    """The frame header has the size. Further pictures behind the first, as phones store them, are no animation."""
    place = 2
    for _ in range(_CHUNKS):
        if raw[place] != 0xFF:
            break
        marker = raw[place + 1]
        if marker in _SIZES:
            height, width = struct.unpack_from(">HH", raw, place + 5)
            return Header("JPEG", width, height, False)
        if marker == 0xFF:  # a fill byte
            place += 1
        else:
            place += 2 if marker in _BARE else 2 + struct.unpack_from(">H", raw, place + 2)[0]
    raise Unreadable("broken")
