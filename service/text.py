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

from selectolax.lexbor import LexborHTMLParser

RAW_CHARACTERS_PER_KEPT = 8
"""Raw characters looked at for each one kept: markup may be most of a message, but cost must stay bounded."""

_INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
_INVISIBLE_ASCII = bytes(code for code in range(128) if _INVISIBLE.match(chr(code)))
_TAG = re.compile(
    r"<(?:!doctype|html|head|body|title|meta|p|br|hr|div|span|table|tr|td|font|center|a|img|b|i|u|strong|em|ul|li|h[1-6])\b[^<>]*>",
    re.I,
)
_UNSEEN = re.compile(r"<(?:(style|script)\b|!--)", re.I)
_ENDS = {"style": re.compile(r"</style[^<>]*>", re.I), "script": re.compile(r"</script[^<>]*>", re.I), None: re.compile("-->")}
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
_ADDRESS = re.compile(r"(?:mailto:)?[\w.+%'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})*")


def _unicode(text: str) -> str:
    """NFKC (Unicode Annex 15), and no control or zero-width characters."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    if lines.isascii():  # most are, and bytes are faster to look through
        return lines.encode("ascii").translate(None, _INVISIBLE_ASCII).decode("ascii")
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", lines))


def _html(text: str) -> str:
    """The visible text of HTML; text without tags is left as it is."""
    if "<" not in text or not _TAG.search(text):
        return text
    tree = LexborHTMLParser(text)
    tree.strip_tags(["script", "style", "noscript", "template"])
    root = tree.root
    return root.text(separator=" ") if root is not None else ""


def _without_unseen(text: str) -> str:
    """HTML without its style sheets, scripts and comments, in one pass over it; one that does not end goes to the end."""
    kept, here = [], 0
    while begin := _UNSEEN.search(text, here):
        kept.append(text[here : begin.start()])
        end = _ENDS[begin[1].lower() if begin[1] else None].search(text, begin.end())
        if end is None:
            return "".join(kept)
        here = end.end()
    return "".join([*kept, text[here:]])


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
    if "@" not in text:
        return text
    # The pattern is tried on the few words that can match: over a whole text it costs more than all other steps.
    return " ".join(_ADDRESS.sub(" emailaddress ", word) if "@" in word else word for word in text.split(" "))


def _whitespace(text: str) -> str:
    """Runs of blanks become one, empty lines go."""
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


STEPS: dict[str, Callable[[str], str]] = {
    "unicode": _unicode,
    "html": _html,
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

    @property
    def raw_characters(self) -> int:
        """So many of a raw text are looked at; what comes after them is not read."""
        return self.characters * RAW_CHARACTERS_PER_KEPT

    def __call__(self, text: str) -> str:
        if len(text) > self.raw_characters and "html" in self.steps:
            text = _without_unseen(text)  # a long style sheet must not hide the words behind it
        text = text[: self.raw_characters]
        for step in self.steps:
            text = STEPS[step](text)
        if self.redact:
            lower = text.lower()
            if any(word in lower for word in self._redacted_lower):
                text = self._redacted.sub("", text)
        return text[: self.characters]


def document(subject: str | None, text: str | None) -> str:
    """One raw text of a subject and a body; what is missing is empty."""
    return "\n".join(part for part in (subject, text) if part)
