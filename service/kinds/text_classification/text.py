"""Text normalisation, from raw text to the model's input.

Training, evaluation and the service all call these functions, so there is no skew between training and serving.

A ``Normaliser`` runs the named steps of ``STEPS`` in the given order. Mail is parsed by the module ``mail``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from service.kinds.text_classification.confusables import latin_lookalikes
from service.kinds.text_classification.html import LOOKS_LIKE_HTML, visible_text

RAW_CHARACTERS_PER_KEPT = 8
"""Characters read per character kept: most of a text may be whitespace, but the cost must be bounded."""
FIRST_CHARACTERS_PER_KEPT = 2
"""Characters read per character kept in the first attempt, which is usually enough."""

PART = "\x1c"
"""Separates the parts of a message (ASCII file separator), so that the markup of one cannot hide another."""

_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u001f\u007f-\u0084\u0086-\u009f\ufff9-\ufffb"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Control characters, and code points with the property Default_Ignorable_Code_Point (DerivedCoreProperties.txt)."""
_INVISIBLE_ASCII = bytes(code for code in range(128) if _INVISIBLE.match(chr(code)))
_BREAKS_ASCII = bytes.maketrans(b"\r\v\f\x1c\x1d\x1e", b"\n" * 6)
_HEADER = re.compile(
    r"[ \t>]*(?:X-[\w-]+|List-[\w-]+|Received|Return-Path|Delivered-To|Date|Message-I[Dd]|Sender|Errors-To|Precedence"
    r"|In-Reply-To|References|Mail-Followup-To)[ \t]*:"
)
_LIST_TAG = re.compile(r"\A((?:(?:re|fwd?|aw)(?:\[\d+\])?:\s*)*)\[[^\]\n]{2,40}\]\s*((?:(?:re|fwd?|aw):\s*)*)", re.I)
_RULE = re.compile(r"^[ \t>]*[-_=*]{8}[^\n]*\n", re.M)
_LIST_WORDS = (
    "mailing list", "listinfo", "mailman", "yahoo! groups", "yahoogroups", "sponsored by", "unsubscribe",
)  # fmt: skip
_LIST_HINTS = (
    "mailing list", "listinfo", "list maintainer:", "yahoo", "mailman", "sponsored by", "unsubscribe", "users' group:",
    "deathtospam",
)  # fmt: skip
"""Substrings of all ``_LIST_WORDS`` and ``_TRAILERS``: most texts contain none and need no further search."""
_TRAILERS = (
    "to unsubscribe from this group", "to unsubscribe, e", "/listinfo/", "users' group:", "list maintainer:",
    "deathtospam", "your use of yahoo! groups",
)  # fmt: skip
ADDRESS_CHARACTERS = 71
"""Most characters of an address before its ``@``: 64 of the local part (RFC 5321), and ``mailto:``."""
_LOCAL = re.compile(r"(?:mailto:)?[\w.+%'-]{1,64}\Z")
_DOMAIN = re.compile(r"@[\w-]{1,63}(?:\.[\w-]{1,63})*")


def _normalise_unicode(text: str) -> str:
    """Apply NFKC (Unicode Annex 15), convert line breaks to line feeds, and remove control and other invisible characters."""
    if text.isascii():  # most are, and bytes are faster to scan
        lines = text.replace("\r\n", "\n").encode("ascii")
        return lines.translate(_BREAKS_ASCII, _INVISIBLE_ASCII).decode("ascii")
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", _LINE_BREAKS.sub("\n", text)))


def _strip_html(text: str, characters: int | None = None) -> str:
    """The visible text of HTML; text without tags is unchanged. Each part of a message is parsed separately.

    ``characters``: how many of each part's text are needed.
    """
    if "<" not in text:
        return text
    parts = [_page_text(part, characters) if LOOKS_LIKE_HTML.search(part) else part for part in text.split(PART)]
    return PART.join(parts)


def _page_text(html: str, characters: int | None) -> str:
    """The visible text without the blank lines left by markup, which make up most of a long page."""
    return "\n".join([line for line in visible_text(html, characters).split("\n") if line and not line.isspace()])


def _remove_headers(text: str) -> str:
    """Remove header lines in the body of bounces and forwards, which name filters, lists and dates."""
    return "\n".join(line for line in text.split("\n") if ":" not in line or not _HEADER.match(line))


def _remove_list_tags(text: str) -> str:
    """``Re: [listname] topic`` becomes ``Re: topic``: the name of a list leaks the label."""
    return _LIST_TAG.sub(r"\1\2", text)


def _remove_footers(text: str) -> str:
    """Remove a last block after a ruled line that mentions a mailing list, and single lines that do."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters change length when lowercased, and offsets must agree
        return text
    if not any(hint in lower for hint in _LIST_HINTS):
        return text
    if any(word in lower for word in _LIST_WORDS):
        for rule in reversed(list(_RULE.finditer(text))):
            block = lower[rule.end() : rule.end() + 600]
            if len(text) - rule.end() < 1200 and any(word in block for word in _LIST_WORDS):
                text = text[: rule.start()]
        lower = lower[: len(text)]
    if footer_lines := {line for word in _TRAILERS for line in _lines_with(word, lower)}:
        text = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in footer_lines)
    return text


def _lines_with(word: str, text: str) -> Iterator[int]:
    """The numbers, from 0, of the lines of ``text`` that contain ``word``."""
    position = text.find(word)
    while position >= 0:
        yield text.count("\n", 0, position)
        position = text.find(word, position + 1)


def _replace_addresses(text: str) -> str:
    """Replace e-mail addresses, which name the recipients in the corpus, by one word."""
    pieces, position, at = [], 0, text.find("@")
    while at >= 0:
        local, domain = _LOCAL.search(text, max(position, at - ADDRESS_CHARACTERS), at), _DOMAIN.match(text, at)
        if local and domain:
            pieces += [text[position : local.start()], " emailaddress "]
            position = domain.end()
        at = text.find("@", max(position, at + 1))
    return "".join([*pieces, text[position:]]) if pieces else text


def _collapse_whitespace(text: str) -> str:
    """Collapse runs of whitespace and remove empty lines."""
    return "\n".join([" ".join(words) for line in text.split("\n") if (words := line.split())])


STEPS: dict[str, Callable[[str], str]] = {
    "html": _strip_html,
    "unicode": _normalise_unicode,
    "confusables": latin_lookalikes,
    "headers": _remove_headers,
    "list_tags": _remove_list_tags,
    "footers": _remove_footers,
    "addresses": _replace_addresses,
    "whitespace": _collapse_whitespace,
}
"""The normalisation steps by their names in ``prepare.normalise``."""


@dataclass(frozen=True)
class Normaliser:
    """Normalises a raw text to the model's input. The settings are part of the release, so that training and serving agree.

    ``steps`` are names of ``STEPS``, applied in order. All occurrences of the strings of ``redact`` (any case) are removed. At
    most ``characters`` are kept. Raises ValueError for an unknown step.
    """

    steps: tuple[str, ...]
    redact: tuple[str, ...]
    characters: int

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Normaliser:
        """From the format of ``data/schema.json`` and of a release's settings."""
        return cls(tuple(settings["steps"]), tuple(settings["redact"]), settings["characters"])

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise ValueError(f"unknown normalisation step {step!r}; there are {', '.join(STEPS)}")

    @cached_property
    def _redact_pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.redact)), re.I)

    @cached_property
    def _redact_lower(self) -> tuple[str, ...]:
        return tuple(word.lower() for word in self.redact)

    def __call__(self, text: str) -> str:
        if "html" in self.steps:  # before the cut: all visible text may come after it
            text = _strip_html(text, self.characters)
        for factor in (FIRST_CHARACTERS_PER_KEPT, RAW_CHARACTERS_PER_KEPT):
            prefix = text[: self.characters * factor]
            normalised = self._apply_steps(prefix)
            if len(normalised) >= self.characters or len(prefix) == len(text):
                break
        return normalised[: self.characters]

    def _apply_steps(self, text: str) -> str:
        """Apply all steps except ``html``, then redact."""
        for step in self.steps:
            text = STEPS[step](text) if step != "html" else text
        if self.redact:
            lower = text.lower()
            if any(word in lower for word in self._redact_lower):
                text = self._redact_pattern.sub("", text)
        return text


def document(subject: str | None, text: str | None) -> str:
    """Join a subject and a body to one raw text; either may be missing."""
    return PART.join(part for part in (subject, text) if part)
