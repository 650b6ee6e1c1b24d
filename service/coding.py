"""Content codings of a request body (RFC 9110 8.4), decoded up to a size limit: a small body may expand to gigabytes.

gzip and deflate are supported, since every client has them. br and zstd are refused: hardly any client sends them, and each
would expose one more native decoder to untrusted input and add one more package to the Bento.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise

from service.refused import Refused

ACCEPTED = "gzip, deflate, identity"
"""The ``Accept-Encoding`` header of the response that refuses a coding (RFC 9110 15.5.16)."""
MAX_CODINGS = 5
MAX_MEMBERS = 1000
"""Gzip members in one body: each needs its own decoder, however small it is."""
CHUNK_BYTES = 16_384
"""Bytes passed to a decoder at once: it copies its unused input, so a body of many members must not be passed whole."""


def codings(values: list[str]) -> list[str]:
    """The codings in the ``Content-Encoding`` headers, in the order in which they were applied, without ``identity``.

    Raises Refused: 415 for an unsupported coding, or for more than ``MAX_CODINGS``.
    """
    names = [name.strip().lower() for value in values for name in value.split(",")]
    content_codings = [_ALIASES.get(name, name) for name in names if name not in ("", "identity")]
    if any(name not in _DECODERS for name in content_codings):
        sentence = f"The body's Content-Encoding is not one that is read here; send it as one of {ACCEPTED}."
        raise Refused(415, sentence, {"Accept-Encoding": ACCEPTED})
    if len(content_codings) > MAX_CODINGS:
        sentence = f"The body has {len(content_codings)} content codings; at most {MAX_CODINGS} are read."
        raise Refused(415, sentence, {"Accept-Encoding": ACCEPTED})
    return content_codings


def encoded_limit(limit: int) -> int:
    """Maximum encoded size of ``limit`` bytes: incompressible data grows by less than a thousandth."""
    return limit + limit // 64 + 1024


def decode(body: bytes, content_codings: list[str], limit: int) -> bytes:
    """Decode ``body``. Each step holds at most ``encoded_limit(limit)`` bytes.

    Raises Refused: 400 for a body that does not match its declared coding, 413 for more than ``limit`` bytes.
    """
    steps = [*content_codings[::-1], ""]
    for coding, next_coding in pairwise(steps):
        max_bytes = encoded_limit(limit) if next_coding else limit
        try:
            body = _DECODERS[coding](body, max_bytes)
        except (zlib.error, ValueError):
            raise Refused(400, f"The body is not what its Content-Encoding says: it is broken {coding}.") from None
        except _TooLarge:
            raise Refused(413, f"The body is larger than {limit} bytes.") from None
    return body


class _TooLarge(Exception):
    """The decoded body exceeds its limit."""


def _gunzip(body: bytes, limit: int) -> bytes:
    """RFC 1952: one or more members. Raises ValueError for a truncated body or trailing data."""
    decoded, start, members = bytearray(), 0, 0
    while start < len(body) or not members:
        members += 1
        if members > MAX_MEMBERS:
            raise ValueError
        start = _inflate(body, start, zlib.MAX_WBITS + 16, decoded, limit)
    return bytes(decoded)


def _undeflate(body: bytes, limit: int) -> bytes:
    """RFC 1950 or, as many clients send it, raw RFC 1951; the check bits of the zlib header distinguish them."""
    has_zlib_header = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    decoded = bytearray()
    if _inflate(body, 0, zlib.MAX_WBITS if has_zlib_header else -zlib.MAX_WBITS, decoded, limit) < len(body):
        raise ValueError
    return bytes(decoded)


def _inflate(body: bytes, start: int, window: int, decoded: bytearray, limit: int) -> int:
    """Decode one stream from ``start`` into ``decoded``. Returns its end. Raises zlib.error, ValueError, _TooLarge."""
    decoder = zlib.decompressobj(window)
    while not decoder.eof:
        chunk = decoder.unconsumed_tail or body[start : start + CHUNK_BYTES]
        if not chunk:
            raise ValueError
        if not decoder.unconsumed_tail:
            start += len(chunk)
        decoded += decoder.decompress(chunk, limit + 1 - len(decoded))
        if len(decoded) > limit:
            raise _TooLarge
    return start - len(decoder.unused_data)


_ALIASES = {"x-gzip": "gzip"}
_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gunzip, "deflate": _undeflate}
