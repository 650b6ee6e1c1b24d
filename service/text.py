"""From what arrives to the text that a model sees.

Training, evaluation and the service all call these functions, so a model is never asked about a text that was
cleaned in another way than the one it learned from.

A ``Normaliser`` runs the named steps of ``STEPS`` in the order given; it knows nothing of mail (``service.mail`` does).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from service.confusables import latin_lookalikes
from service.html import LOOKS_LIKE_HTML, visible_text

RAW_CHARACTERS_PER_KEPT = 8
"""Characters looked at for each one kept: blanks may be most of a text, but cost must stay bounded."""
FIRST_LOOK = 2
"""Characters looked at for each one kept at first, which mostly is enough."""

PART = "\x1c"
"""Stands between the parts of a message (ASCII: file separator), so that the markup of one cannot hide another."""

_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u001f\u007f-\u0084\u0086-\u009f\ufff9-\ufffb"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls, and every code point that Unicode calls Default_Ignorable_Code_Point (DerivedCoreProperties.txt)."""
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
"""Parts of all that ``_LIST_WORDS`` and ``_TRAILERS`` look for: most texts hold none, and need no further look."""
_TRAILERS = (
    "to unsubscribe from this group", "to unsubscribe, e", "/listinfo/", "users' group:", "list maintainer:",
    "deathtospam", "your use of yahoo! groups",
)  # fmt: skip
ADDRESS_CHARACTERS = 71
"""How far before its ``@`` an address may begin: 64 of the local part (RFC 5321), and ``mailto:``."""
_LOCAL = re.compile(r"(?:mailto:)?[\w.+%'-]{1,64}\Z")
_DOMAIN = re.compile(r"@[\w-]{1,63}(?:\.[\w-]{1,63})*")


def _unicode(text: str) -> str:
    """NFKC (Unicode Annex 15), every kind of line break a line feed, and no control or other invisible characters."""
    if text.isascii():  # most are, and bytes are faster to look through
        lines = text.replace("\r\n", "\n").encode("ascii")
        return lines.translate(_BREAKS_ASCII, _INVISIBLE_ASCII).decode("ascii")
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", _LINE_BREAKS.sub("\n", text)))


def _html(text: str, characters: int | None = None) -> str:
    """The visible text of HTML; text without tags is left as it is. Each part of a message is a page of its own.

    ``characters``: so many of the text of each part are enough.
    """
    if "<" not in text:
        return text
    parts = [_page(part, characters) if LOOKS_LIKE_HTML.search(part) else part for part in text.split(PART)]
    return PART.join(parts)


def _page(html: str, characters: int | None) -> str:
    """The visible text without the blank lines that markup leaves: a long page mostly consists of them."""
    return "\n".join([line for line in visible_text(html, characters).split("\n") if line and not line.isspace()])


def _headers(text: str) -> str:
    """Header lines in the body of bounces and forwards, which name filters, lists and dates."""
    return "\n".join(line for line in text.split("\n") if ":" not in line or not _HEADER.match(line))


def _list_tags(text: str) -> str:
    """``Re: [listname] topic`` becomes ``Re: topic``: a list's name gives its label away."""
    return _LIST_TAG.sub(r"\1\2", text)


def _footers(text: str) -> str:
    """A last block behind a ruled line that speaks of its mailing list, and lone lines that do."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters change length when lowered, and offsets must agree
        return text
    if not any(hint in lower for hint in _LIST_HINTS):
        return text
    if any(word in lower for word in _LIST_WORDS):
        for rule in reversed(list(_RULE.finditer(text))):
            block = lower[rule.end() : rule.end() + 600]
            if len(text) - rule.end() < 1200 and any(word in block for word in _LIST_WORDS):
                text = text[: rule.start()]
        lower = lower[: len(text)]
    if gone := {line for word in _TRAILERS for line in _lines_with(word, lower)}:
        text = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in gone)
    return text


def _lines_with(word: str, text: str) -> Iterator[int]:
    """The numbers of the lines of ``text`` that hold ``word``, from 0."""
    here = text.find(word)
    while here >= 0:
        yield text.count("\n", 0, here)
        here = text.find(word, here + 1)


def _addresses(text: str) -> str:
    """E-mail addresses, which name the corpus's own receivers, become one word."""
    kept, here, at = [], 0, text.find("@")
    while at >= 0:
        local, domain = _LOCAL.search(text, max(here, at - ADDRESS_CHARACTERS), at), _DOMAIN.match(text, at)
        if local and domain:
            kept += [text[here : local.start()], " emailaddress "]
            here = domain.end()
        at = text.find("@", max(here, at + 1))
    return "".join([*kept, text[here:]]) if kept else text


def _whitespace(text: str) -> str:
    """Runs of blanks become one, empty lines go."""
    return "\n".join([" ".join(words) for line in text.split("\n") if (words := line.split())])


STEPS: dict[str, Callable[[str], str]] = {
    "html": _html,
    "unicode": _unicode,
    "confusables": latin_lookalikes,
    "headers": _headers,
    "list_tags": _list_tags,
    "footers": _footers,
    "addresses": _addresses,
    "whitespace": _whitespace,
}
"""Every normalisation step by its name in ``prepare.normalise``."""


@dataclass(frozen=True)
class Normaliser:
    """Raw text in, the text a model sees out; the release carries these settings, so that all agree.

    ``steps`` are names of ``STEPS``, run in order; every string of ``redact`` (any case) is taken out where it
    stands; at most ``characters`` are kept. Raises ValueError for a step that is not there.
    """

    steps: tuple[str, ...]
    redact: tuple[str, ...]
    characters: int

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Normaliser:
        """As ``data/schema.json`` and a release's settings hold it."""
        return cls(tuple(settings["steps"]), tuple(settings["redact"]), settings["characters"])

    def __post_init__(self) -> None:
        for step in self.steps:
            if step not in STEPS:
                raise ValueError(f"unknown normalisation step {step!r}; there are {', '.join(STEPS)}")

    @cached_property
    def _redacted(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.redact)), re.I)

    @cached_property
    def _redacted_lower(self) -> tuple[str, ...]:
        return tuple(word.lower() for word in self.redact)

    def __call__(self, text: str) -> str:
        if "html" in self.steps:  # what is cut before the markup is gone may be all that is visible
            text = _html(text, self.characters)
        for share in (FIRST_LOOK, RAW_CHARACTERS_PER_KEPT):
            cut = text[: self.characters * share]
            kept = self._plain(cut)
            if len(kept) >= self.characters or len(cut) == len(text):
                break
        return kept[: self.characters]

    def _plain(self, text: str) -> str:
        """All steps but that of the markup, and the words that are taken out."""
        for step in self.steps:
            text = STEPS[step](text) if step != "html" else text
        if self.redact:
            lower = text.lower()
            if any(word in lower for word in self._redacted_lower):
                text = self._redacted.sub("", text)
        return text


def document(subject: str | None, text: str | None) -> str:
    """One raw text of a subject and a body; what is missing is empty."""
    return PART.join(part for part in (subject, text) if part)
