"""Content codings of a request's body (RFC 9110 8.4), undone within a limit: a small body may stand for gigabytes.

gzip and deflate are read, since every client has them. br and zstd are refused: hardly a client sends them, and each would
put one more native decoder between the world and the service, and one more package into the Bento.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise

from service.refused import Refused

ACCEPTED = "gzip, deflate, identity"
"""What ``Accept-Encoding`` says where a coding is refused (RFC 9110 15.5.16)."""
MAX_CODINGS = 5
MAX_MEMBERS = 1000
"""Gzip members in one body: each costs a decoder of its own, however little it holds."""
PIECE = 16_384
"""Bytes given to a decoder at once: it copies what it does not use, so a body of many members must not be given whole."""


def codings(values: list[str]) -> list[str]:
    """The codings of the ``Content-Encoding`` headers, in the order in which they were applied; ``identity`` is none.

    Raises Refused: 415 for one that is not read here, or for more than ``MAX_CODINGS``.
    """
    named = [name.strip().lower() for value in values for name in value.split(",")]
    applied = [_ALIASES.get(name, name) for name in named if name not in ("", "identity")]
    if any(name not in _DECODERS for name in applied):
        sentence = f"The body's Content-Encoding is not one that is read here; send it as one of {ACCEPTED}."
        raise Refused(415, sentence, {"Accept-Encoding": ACCEPTED})
    if len(applied) > MAX_CODINGS:
        sentence = f"The body has {len(applied)} content codings; at most {MAX_CODINGS} are read."
        raise Refused(415, sentence, {"Accept-Encoding": ACCEPTED})
    return applied


def encoded_limit(limit: int) -> int:
    """Bytes that ``limit`` bytes may take when they are coded: what cannot be compressed grows by less than a thousandth."""
    return limit + limit // 64 + 1024


def decode(body: bytes, applied: list[str], limit: int) -> bytes:
    """``body`` without its codings. Holds at most ``encoded_limit(limit)`` bytes a step.

    Raises Refused: 400 for a body that is not what it says it is, 413 for more than ``limit`` bytes.
    """
    steps = [*applied[::-1], ""]
    for name, following in pairwise(steps):
        most = encoded_limit(limit) if following else limit
        try:
            body = _DECODERS[name](body, most)
        except (zlib.error, ValueError):
            raise Refused(400, f"The body is not what its Content-Encoding says: it is broken {name}.") from None
        except _Large:
            raise Refused(413, f"The body is larger than {limit} bytes.") from None
    return body


class _Large(Exception):
    """The decoded body goes beyond its limit."""


def _gunzip(body: bytes, limit: int) -> bytes:
    """RFC 1952: one member or several. Raises ValueError for what ends early, or goes on with something else."""
    decoded, start, members = bytearray(), 0, 0
    while start < len(body) or not members:
        members += 1
        if members > MAX_MEMBERS:
            raise ValueError
        start = _inflate(body, start, zlib.MAX_WBITS + 16, decoded, limit)
    return bytes(decoded)


def _undeflate(body: bytes, limit: int) -> bytes:
    """RFC 1950 or, as many clients have it, RFC 1951 without the wrapper, told apart by the wrapper's check bits."""
    wrapped = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    decoded = bytearray()
    if _inflate(body, 0, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, decoded, limit) < len(body):
        raise ValueError
    return bytes(decoded)


def _inflate(body: bytes, start: int, window: int, decoded: bytearray, limit: int) -> int:
    """Append what one stream from ``start`` holds to ``decoded``; where it ends. Raises zlib.error, ValueError, _Large."""
    decoder = zlib.decompressobj(window)
    while not decoder.eof:
        piece = decoder.unconsumed_tail or body[start : start + PIECE]
        if not piece:
            raise ValueError
        if not decoder.unconsumed_tail:
            start += len(piece)
        decoded += decoder.decompress(piece, limit + 1 - len(decoded))
        if len(decoded) > limit:
            raise _Large
    return start - len(decoder.unused_data)


_ALIASES = {"x-gzip": "gzip"}
_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gunzip, "deflate": _undeflate}
