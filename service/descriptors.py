"""What can be said of a text without saying it: a few numbers, safe to store and to watch for drift."""

from __future__ import annotations

import re

_LINK = re.compile(r"https?://|www\.", re.I)
_TAG = re.compile(r"<[a-zA-Z/!]")

NAMES = ("characters", "words", "links", "capital_share", "digit_share", "symbol_share", "tags", "unknown_word_share")


def describe(raw: str, unknown_word_share: float) -> dict[str, float]:
    """The descriptors of one raw text, by the names in ``NAMES``; shares are of its characters (or words)."""
    length = max(1, len(raw))
    letters = sum(map(str.isalpha, raw))
    return {
        "characters": float(len(raw)),
        "words": float(len(raw.split())),
        "links": float(len(_LINK.findall(raw))),
        "capital_share": sum(map(str.isupper, raw)) / max(1, letters),
        "digit_share": sum(map(str.isdigit, raw)) / length,
        "symbol_share": sum(not (c.isalnum() or c.isspace()) for c in raw) / length,
        "tags": float(len(_TAG.findall(raw))),
        "unknown_word_share": unknown_word_share,
    }
