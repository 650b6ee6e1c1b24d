"""What CSS and the attributes of HTML hide: by the declarations of an element and of those around it, without a layout.

Colours and sizes are read as CSS Color 4 and CSS Values 4 say; what a colour hides is a text in the colour of its ground.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import tinycss2
from tinycss2.color4 import parse_color

SHEET_CHARACTERS = 20_000
"""How much of each style sheet is looked at."""

_STYLES = re.compile(r"style\s*=\s*(?:\"[^\"]*\"?|'[^']*'?|[^\s>]+)|style(?:\s[^<>]*)?>.*?</style")
_MAY_HIDE = re.compile(
    r"(?:display|visibility|opacity|mso-hide|text-indent|position|clip|clip-path|transform)\s*:|transparent|rgba|hsla|\\"
    r"|font(?:-size)?\s*:[^;\"'<>]{0,80}?(?<![\w.#])(?:[01](?:\.\d+)?|\.\d+)(?!\d)|(?:height|width)\s*:\s*(?:[01](?:\.\d+)?|\.\d+)(?![\d.%])"
)
_HIDDEN = re.compile(r"<[^<>]*\shidden(?![\w\"'-])|<dialog")
_VALUE = r"\s*[\"']?\s*([#\w]+(?:\([^()<>]{0,60}\))?)"
_COLOUR, _GROUND, _TEXT = (re.compile(name + _VALUE) for name in (r"color\s*[=:]", r"background\s*:", r"text\s*="))
TELLING = "[style],[hidden],[color],[bgcolor],[background],body[text],dialog"
"""The elements that ``styled`` has anything to say of, but for those of a style sheet."""
_PROPERTIES = {
    "color", "background", "background-color", "background-image", "font", "font-size", "visibility", "opacity", "display",
    "float", "position", "left", "top", "right", "bottom", "overflow", "height", "max-height", "width", "max-width",
    "text-indent", "clip", "clip-path", "transform", "mso-hide",
}  # fmt: skip
"""What ``styled`` and line breaks hang on."""
_LENGTH = re.compile(r"\s*(-?\d*\.?\d+)\s*([a-z%]*)", re.I)
_SAME_COLOUR = 0.08
"""Largest difference of a channel, of 1, at which nobody reads a text on its ground."""

Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)


class Style(NamedTuple):
    """What an element hands down to the text in it. ``ground`` is None over a picture."""

    colour: Colour = BLACK
    ground: Colour | None = WHITE
    hidden: bool = False
    invisible: bool = False

    @property
    def is_shown(self) -> bool:
        return not (self.hidden or self.invisible or (self.ground is not None and _alike(self.colour, self.ground)))


def may_hide(lower: str) -> bool:
    """Whether a declaration, an attribute or a colour may take something out of sight."""
    if "style" in lower and _MAY_HIDE.search(";".join(_STYLES.findall(lower))):
        return True
    if ("hidden" in lower or "<dialog" in lower) and _HIDDEN.search(lower):
        return True
    return any(word in lower for word in ("color", "background", "text")) and _colours_meet(lower)


def _colours_meet(lower: str) -> bool:
    """Whether a colour of text is one of the grounds, wherever either stands."""
    fore, grounds = {"black"}, {"white"}
    for match in _COLOUR.finditer(lower):
        (grounds if lower.endswith(("bg", "background-"), 0, match.start()) else fore).add(match[1])
    grounds.update(_GROUND.findall(lower) if "background" in lower else ())
    fore.update(_TEXT.findall(lower) if "text" in lower else ())
    shown = [colour for value in grounds if (colour := _parse_colour(value))]
    return any(_alike(one, other) for value in fore if (one := _parse_colour(value)) for other in shown)


@lru_cache(maxsize=64)  # the mails of one sender have one sheet
def rules_of(sheet: str) -> tuple[tuple[str, dict[str, str]], ...]:
    """(selector, declarations) of each rule of a style sheet that holds for a screen of any size, in order.

    Of a long sheet ``SHEET_CHARACTERS`` are read, and rules that neither hide nor move anything are left out.
    """
    return tuple((selector, found) for selector, found in _rules(sheet[:SHEET_CHARACTERS]) if found)


def _rules(css: str) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in tinycss2.parse_stylesheet(css.replace("<!--", "").replace("-->", ""), skip_comments=True, skip_whitespace=True):
        if rule.type == "qualified-rule":
            yield str(tinycss2.serialize(rule.prelude)).strip(), _declarations(tinycss2.serialize(rule.content))
        elif rule.type == "at-rule" and rule.lower_at_keyword == "media" and _serialize(rule.prelude) in ("", "all", "screen"):
            yield from _rules(tinycss2.serialize(rule.content or []))  # what hangs on the width of a window is left alone


def declared_by(attributes: Mapping[str, str | None], rules: Mapping[str, str] | None) -> dict[str, str]:
    """The declarations of an element by property: those of the style sheets, then its own."""
    own = _declarations(attributes.get("style") or "") if "style" in attributes else {}
    return {**rules, **own} if rules else own


@lru_cache(maxsize=4096)
def _declarations(css: str) -> dict[str, str]:
    """The declarations of a block that matter, by property, as CSS reads them: without comments, escapes and case."""
    found: dict[str, str] = {}
    for item in tinycss2.parse_blocks_contents(css, skip_comments=True, skip_whitespace=True):
        if item.type == "declaration" and item.lower_name in _PROPERTIES:
            found[item.lower_name] = _serialize(item.value)
    return found


def _serialize(tokens: list[Any]) -> str:
    return str(tinycss2.serialize([token for token in tokens if token.type != "comment"])).strip().lower()


def styled(style: Style, tag: str, attributes: dict[str, str | None], declared: dict[str, str]) -> Style:
    """The style of the element below a parent of ``style``."""
    colour = declared.get("color") or attributes.get("color" if tag != "body" else "text")
    ground = declared.get("background-color") or declared.get("background") or attributes.get("bgcolor")
    picture = attributes.get("background") or "url(" in (declared.get("background", "") + declared.get("background-image", ""))
    changes: dict[str, Any] = {}
    if colour and _is_clear(colour):
        changes["invisible"] = True
    elif colour and (parsed := _parse_colour(colour)):
        changes |= {"colour": parsed, "invisible": False}
    if picture:
        changes["ground"] = None
    elif ground and not _is_clear(ground) and (parsed := _parse_colour(ground.split(" ")[0] if "(" not in ground else ground)):
        changes["ground"] = parsed
    if visibility := declared.get("visibility"):
        changes["invisible"] = visibility in ("hidden", "collapse")
    if _size(declared.get("font-size") or _font_size(declared.get("font", ""))) is not None:
        changes["invisible"] = _is_tiny(declared.get("font-size") or _font_size(declared["font"]))
    if style.hidden or "hidden" in attributes or (tag == "dialog" and "open" not in attributes) or _hides(declared):
        changes["hidden"] = True
    return style._replace(**changes) if changes else style


def _hides(declared: dict[str, str]) -> bool:
    """Whether the declarations take the element and all in it out of sight."""
    if not declared:
        return False
    opacity = _size(declared.get("opacity"))
    sides = [_size(declared.get(name)) for name in ("height", "max-height", "width", "max-width")]
    flat = [size is not None and size <= 1 for size in sides]
    clipped = declared.get("overflow", "visible").startswith(("hidden", "clip")) or (any(flat[:2]) and any(flat[2:]))
    away = declared.get("position") in ("absolute", "fixed") and any(
        (_size(declared.get(side)) or 0) <= -500 for side in ("left", "top", "right", "bottom")
    )
    return (
        declared.get("display") == "none"
        or "all" in declared.get("mso-hide", "")
        or (opacity is not None and opacity <= 0.05)
        or (any(flat) and clipped)
        or away
        or (_size(declared.get("text-indent")) or 0) <= -100
        or bool(re.match(r"rect\(\s*(?:0|1px)", declared.get("clip", "")))
        or bool(re.match(r"inset\(\s*(?:50|100)%|circle\(\s*0", declared.get("clip-path", "")))
        or bool(re.search(r"scale[xy]?\(\s*0?\.?0*[\s,)]", declared.get("transform", "")))
    )


def _font_size(font: str) -> str | None:
    """The size in the shorthand ``font``: its first length."""
    found = re.search(r"(?<![\w#.])\d*\.?\d+(?:px|pt|em|rem|%)?(?=[\s/]|$)", font)
    return found[0] if found else None


def _size(value: str | None) -> float | None:
    """A CSS length in pixels, roughly; of a bare number or a percentage the number (100 % is 16)."""
    match = _LENGTH.match(value or "")
    if match is None:
        return None
    return float(match[1]) * {
        "em": 16.0,
        "rem": 16.0,
        "ex": 8.0,
        "pt": 4 / 3,
        "%": 0.16,
        "vw": 10.0,
        "in": 96.0,
        "cm": 38.0,
    }.get(match[2].lower(), 1.0)


def _is_tiny(value: str | None) -> bool:
    size = _size(value)
    return size is not None and size < 2


@lru_cache(maxsize=4096)
def _parse_colour(value: str) -> Colour | None:
    value = value.strip().rstrip(";")
    if re.fullmatch(r"[0-9a-f]{6}|[0-9a-f]{3}", value, re.I):
        value = f"#{value}"  # <font color=ffffff>
    parsed = parse_color(value)
    if parsed is None or isinstance(parsed, str):
        return None
    red, green, blue = parsed.to("srgb").coordinates
    return (red, green, blue)


@lru_cache(maxsize=4096)
def _is_clear(value: str) -> bool:
    """Whether the colour lets the ground through."""
    parsed = parse_color(value)
    return value.strip() == "transparent" or (parsed is not None and not isinstance(parsed, str) and parsed.alpha < 0.1)


@lru_cache(maxsize=4096)
def _alike(one: Colour, other: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= _SAME_COLOUR
