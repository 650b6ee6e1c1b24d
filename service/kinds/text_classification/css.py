"""Detects text hidden by CSS or HTML attributes, from the declarations of an element and its ancestors, without layout.

Colours and sizes follow CSS Color 4 and CSS Values 4; a colour hides text if it is that of the background.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import tinycss2
from tinycss2.color4 import parse_color

SHEET_CHARACTERS = 20_000
"""Characters of each style sheet that are parsed."""

_STYLE_CODE = re.compile(r"style\s*=\s*(?:\"[^\"]*\"?|'[^']*'?|[^\s>]+)|style(?:\s[^<>]*)?>.*?</style")
_HIDING_DECLARATION = re.compile(
    r"(?:display|visibility|opacity|mso-hide|text-indent|position|clip|clip-path|transform)\s*:|transparent|rgba|hsla|\\"
    r"|font(?:-size)?\s*:[^;\"'<>]{0,80}?(?<![\w.#])(?:[01](?:\.\d+)?|\.\d+)(?!\d)|(?:height|width)\s*:\s*(?:[01](?:\.\d+)?|\.\d+)(?![\d.%])"
)
_HIDDEN_ELEMENT = re.compile(r"<[^<>]*\shidden(?![\w\"'-])|<dialog")
_VALUE = r"\s*[\"']?\s*([#\w]+(?:\([^()<>]{0,60}\))?)"
_COLOUR, _BACKGROUND, _TEXT = (re.compile(name + _VALUE) for name in (r"color\s*[=:]", r"background\s*:", r"text\s*="))
STYLED_ELEMENTS = "[style],[hidden],[color],[bgcolor],[background],body[text],dialog"
"""Selects the elements whose style may differ from their parent's, apart from those in a style sheet."""
_PROPERTIES = {
    "color", "background", "background-color", "background-image", "font", "font-size", "visibility", "opacity", "display",
    "float", "position", "left", "top", "right", "bottom", "overflow", "height", "max-height", "width", "max-width",
    "text-indent", "clip", "clip-path", "transform", "mso-hide",
}  # fmt: skip
"""The properties that affect ``apply_style`` and line breaks."""
_LENGTH = re.compile(r"\s*(-?\d*\.?\d+)\s*([a-z%]*)", re.I)
_COLOUR_TOLERANCE = 0.08
"""Largest difference per channel (0 to 1) at which text on its background is unreadable."""

Colour = tuple[float, float, float]
WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)


class Style(NamedTuple):
    """The style that text inherits from its element. ``background`` is None over an image."""

    colour: Colour = BLACK
    background: Colour | None = WHITE
    hidden: bool = False
    invisible: bool = False

    @property
    def is_shown(self) -> bool:
        return not (
            self.hidden or self.invisible or (self.background is not None and _is_similar(self.colour, self.background))
        )


def may_hide(lower: str) -> bool:
    """Whether a declaration, an attribute or a colour may hide text; a fast check before parsing."""
    if "style" in lower and _HIDING_DECLARATION.search(";".join(_STYLE_CODE.findall(lower))):
        return True
    if ("hidden" in lower or "<dialog" in lower) and _HIDDEN_ELEMENT.search(lower):
        return True
    return any(word in lower for word in ("color", "background", "text")) and _has_text_in_background_colour(lower)


def _has_text_in_background_colour(lower: str) -> bool:
    """Whether any text colour equals any background colour, wherever they occur."""
    foregrounds, backgrounds = {"black"}, {"white"}
    for match in _COLOUR.finditer(lower):
        (backgrounds if lower.endswith(("bg", "background-"), 0, match.start()) else foregrounds).add(match[1])
    backgrounds.update(_BACKGROUND.findall(lower) if "background" in lower else ())
    foregrounds.update(_TEXT.findall(lower) if "text" in lower else ())
    background_colours = [colour for value in backgrounds if (colour := _parse_colour(value))]
    return any(
        _is_similar(one, other) for value in foregrounds if (one := _parse_colour(value)) for other in background_colours
    )


@lru_cache(maxsize=64)  # mails of one sender share a style sheet
def rules_of(sheet: str) -> tuple[tuple[str, dict[str, str]], ...]:
    """(selector, declarations) of each rule of a style sheet that applies to screens of any size, in order.

    Parses the first ``SHEET_CHARACTERS``, and omits rules that neither hide nor move anything.
    """
    return tuple((selector, declarations) for selector, declarations in _rules(sheet[:SHEET_CHARACTERS]) if declarations)


def _rules(css: str) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in tinycss2.parse_stylesheet(css.replace("<!--", "").replace("-->", ""), skip_comments=True, skip_whitespace=True):
        if rule.type == "qualified-rule":
            yield str(tinycss2.serialize(rule.prelude)).strip(), _declarations(tinycss2.serialize(rule.content))
        elif rule.type == "at-rule" and rule.lower_at_keyword == "media" and _serialize(rule.prelude) in ("", "all", "screen"):
            yield from _rules(tinycss2.serialize(rule.content or []))  # rules that depend on the viewport are ignored


def declarations_of(attributes: Mapping[str, str | None], rules: Mapping[str, str] | None) -> dict[str, str]:
    """The declarations of an element by property: its own override those of the style sheets."""
    own = _declarations(attributes.get("style") or "") if "style" in attributes else {}
    return {**rules, **own} if rules else own


@lru_cache(maxsize=4096)
def _declarations(css: str) -> dict[str, str]:
    """The relevant declarations of a block by property, in lower case, without comments and escapes."""
    declarations: dict[str, str] = {}
    for item in tinycss2.parse_blocks_contents(css, skip_comments=True, skip_whitespace=True):
        if item.type == "declaration" and item.lower_name in _PROPERTIES:
            declarations[item.lower_name] = _serialize(item.value)
    return declarations


def _serialize(tokens: list[Any]) -> str:
    return str(tinycss2.serialize([token for token in tokens if token.type != "comment"])).strip().lower()


def apply_style(style: Style, tag: str, attributes: dict[str, str | None], declarations: dict[str, str]) -> Style:
    """The style of an element whose parent has ``style``."""
    colour = declarations.get("color") or attributes.get("color" if tag != "body" else "text")
    background = declarations.get("background-color") or declarations.get("background") or attributes.get("bgcolor")
    image = attributes.get("background") or "url(" in (
        declarations.get("background", "") + declarations.get("background-image", "")
    )
    changes: dict[str, Any] = {}
    if colour and _is_transparent(colour):
        changes["invisible"] = True
    elif colour and (parsed := _parse_colour(colour)):
        changes |= {"colour": parsed, "invisible": False}
    if image:
        changes["background"] = None
    elif (
        background
        and not _is_transparent(background)
        and (parsed := _parse_colour(background.split(" ")[0] if "(" not in background else background))
    ):
        changes["background"] = parsed
    if visibility := declarations.get("visibility"):
        changes["invisible"] = visibility in ("hidden", "collapse")
    if _size(declarations.get("font-size") or _font_size(declarations.get("font", ""))) is not None:
        changes["invisible"] = _is_tiny(declarations.get("font-size") or _font_size(declarations["font"]))
    if style.hidden or "hidden" in attributes or (tag == "dialog" and "open" not in attributes) or _hides(declarations):
        changes["hidden"] = True
    return style._replace(**changes) if changes else style


def _hides(declarations: dict[str, str]) -> bool:
    """Whether the declarations hide the element and its descendants."""
    if not declarations:
        return False
    opacity = _size(declarations.get("opacity"))
    sides = [_size(declarations.get(name)) for name in ("height", "max-height", "width", "max-width")]
    is_flat = [size is not None and size <= 1 for size in sides]
    is_clipped = declarations.get("overflow", "visible").startswith(("hidden", "clip")) or (
        any(is_flat[:2]) and any(is_flat[2:])
    )
    is_off_screen = declarations.get("position") in ("absolute", "fixed") and any(
        (_size(declarations.get(side)) or 0) <= -500 for side in ("left", "top", "right", "bottom")
    )
    return (
        declarations.get("display") == "none"
        or "all" in declarations.get("mso-hide", "")
        or (opacity is not None and opacity <= 0.05)
        or (any(is_flat) and is_clipped)
        or is_off_screen
        or (_size(declarations.get("text-indent")) or 0) <= -100
        or bool(re.match(r"rect\(\s*(?:0|1px)", declarations.get("clip", "")))
        or bool(re.match(r"inset\(\s*(?:50|100)%|circle\(\s*0", declarations.get("clip-path", "")))
        or bool(re.search(r"scale[xy]?\(\s*0?\.?0*[\s,)]", declarations.get("transform", "")))
    )


def _font_size(font: str) -> str | None:
    """The size in the ``font`` shorthand: its first length."""
    match = re.search(r"(?<![\w#.])\d*\.?\d+(?:px|pt|em|rem|%)?(?=[\s/]|$)", font)
    return match[0] if match else None


def _size(value: str | None) -> float | None:
    """A CSS length in approximate pixels; a bare number is taken as pixels, and 100 % as 16."""
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
def _is_transparent(value: str) -> bool:
    """Whether the colour is (almost) fully transparent."""
    parsed = parse_color(value)
    return value.strip() == "transparent" or (parsed is not None and not isinstance(parsed, str) and parsed.alpha < 0.1)


@lru_cache(maxsize=4096)
def _is_similar(one: Colour, other: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= _COLOUR_TOLERANCE
