"""What a browser shows of HTML: the text, without what is hidden, and with line breaks where a reader sees them.

The parser (lexbor) follows the WHATWG HTML Standard. Where a style sheet, a colour or an attribute may hide text, the style
of each element is computed as CSS, and the rendering section of that standard, say. No layout is computed: text is taken for
hidden where its own declarations, or those around it, say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import tinycss2
from selectolax.lexbor import LexborHTMLParser, LexborNode
from tinycss2.color4 import parse_color

TAGS, DEPTH = 30_000, 300
"""How many tags of a text, and how many within each other, are looked at: the parser takes the square of a tree's depth."""
MANY_TAGS = 2000
"""So many are harmless whatever they are, and not looked at beforehand."""
TAG_CHARACTERS = 2000
"""A longer tag loses its attributes: the parser takes the square of their number."""
MARKUP, FIRST_LOOK = 8, 4000
"""Characters of markup that are looked at first for each character of text that is asked for, and at least."""
SHEET_CHARACTERS = 20_000
"""How much of each style sheet is looked at."""

_NAMES = (
    r"!doctype|a|b(?:ig|lockquote|ody|r|utton)?|center|d(?:el|iv|[dlt])|em|fo(?:nt|rm)|h(?:ead|tml|r|[1-6])|i(?:frame|mg|ns|nput)?|li"
    r"|m(?:ark|arquee|eta)|no(?:br|script)|ol|p(?:re)?|s(?:cript|mall|pan|trike|trong|tyle|u[bp])?|t(?:able|body|emplate|itle|[dhrt])|ul?|wbr"
)
LOOKS_LIKE_HTML = re.compile(rf"</?(?:{_NAMES})(?=[\s/>])[^<>]*>", re.I | re.A)
"""A tag that mail uses; ``<address>`` and ``<time>`` stand in plain text as well."""
_UNSEEN = re.compile(r"<(?:(script)\b|!--)", re.I)
_ENDS = {"script": re.compile(r"</script[^<>]*>", re.I), None: re.compile("-->")}
_LONG_TAG = re.compile(rf"<(/?[a-z][\w:-]*)[^<>]{{{TAG_CHARACTERS},}}>", re.I)

_ANY_TAG = re.compile(
    r"<(/?)(?!(?:p|li|td|th|tr|tbody|dt|dd|option|br|hr|img|input|meta|link|wbr|area|base|col)[\s/>])[a-z]", re.I | re.A
)
"""A tag that a closing one ends: the others end by themselves, or hold nothing."""

_NOT_SHOWN = (
    "script",
    "style",
    "template",
    "title",
    "iframe",
    "object",
    "noframes",
    "noembed",
    "datalist",
    "canvas",
)
_BLOCK_NAMES = (
    "a(?:ddress|rticle|side)|b(?:lockquote|r)|c(?:aption|enter)|d(?:d|etails|ialog|i[rv]|l|t)|f(?:ieldset|igcaption|igure|ooter|orm"
    "|rameset)|h(?:[1-6r]|eader|group)|l(?:egend|i|isting)|m(?:ain|enu)|nav|o(?:l|ptgroup|ption)|p(?:laintext|re)?|s(?:earch|ection"
    "|elect|ummary)|t(?:able|body|extarea|foot|head|r)|ul|xmp"
)
_BLOCK = re.compile(_BLOCK_NAMES)
_BREAK = re.compile(rf"<(?=/?(?:{_BLOCK_NAMES})[\s/>])", re.I | re.A)
_CELL = re.compile(r"<(?=/?t[dh][\s/>])", re.I | re.A)
_STYLES = re.compile(r"style\s*=\s*(?:\"[^\"]*\"?|'[^']*'?|[^\s>]+)|style(?:\s[^<>]*)?>.*?</style")
_MAY_HIDE = re.compile(
    r"(?:display|visibility|opacity|mso-hide|text-indent|position|clip|clip-path|transform)\s*:|transparent|rgba|hsla|\\"
    r"|font(?:-size)?\s*:[^;\"'<>]{0,80}?(?<![\w.#])(?:[01](?:\.\d+)?|\.\d+)(?!\d)|(?:height|width)\s*:\s*(?:[01](?:\.\d+)?|\.\d+)(?![\d.%])"
)
_SAYS_SOMETHING = re.compile(r"color|background|display|float|\\|" + _MAY_HIDE.pattern, re.I)
_HIDDEN = re.compile(r"<[^<>]*\shidden(?![\w\"'-])|<dialog")
_VALUE = r"\s*[\"']?\s*([#\w]+(?:\([^()<>]{0,60}\))?)"
_COLOUR, _GROUND, _TEXT = (re.compile(name + _VALUE) for name in (r"color\s*[=:]", r"background\s*:", r"text\s*="))
_PLAIN_ATTRIBUTES = {
    "href", "src", "alt", "width", "height", "align", "valign", "border", "cellspacing", "cellpadding", "face", "size",
    "target", "name", "nowrap", "id",
}  # fmt: skip
"""Attributes that hide nothing: most elements have no others."""
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


def visible_text(html: str, characters: int | None = None) -> str:
    """The text that a browser shows of ``html``, its blocks and rows on lines of their own.

    ``characters``: so many of the text, blanks not counted, are enough. They mostly stand at the beginning of a long page, and
    then the rest is not parsed, unless a style sheet in it may say something of the beginning.
    """
    if characters is not None:
        begin = max(characters * MARKUP, FIRST_LOOK)
        if len(html) > begin and "<style" not in html[begin:].lower():
            text = _visible(_bounded(html[: html.rfind("<", 0, begin)]))
            if len("".join(text.split())) >= characters:
                return text
    return _visible(_bounded(html))


def _visible(html: str) -> str:
    tree, lower = _parsed(html), html.lower()
    if tree.root is None:
        return ""
    if _may_hide(lower):
        return "".join([text for text, shown in _texts(tree, lower) if shown])
    _strip_unseen(tree, lower)
    return tree.root.text(separator="")


def _strip_unseen(tree: LexborHTMLParser, lower: str) -> None:
    """Take out the elements that no browser shows; each that is looked for costs a walk through the tree."""
    if there := [tag for tag in _NOT_SHOWN if f"<{tag}" in lower]:
        tree.strip_tags(there)


def hidden_share(html: str) -> float:
    """The share of the letters of ``html`` (blanks do not count) that are hidden, 0 to 1."""
    html = _bounded(html)
    lower = html.lower()
    if not _may_hide(lower):
        return 0.0
    letters = [0, 0]
    for text, shown in _texts(_parsed(html), lower):
        letters[shown] += len("".join(text.split()))
    return letters[0] / max(1, sum(letters))


def _parsed(html: str) -> LexborHTMLParser:
    """The tree, with a line feed at the edges of blocks and a blank at those of cells: white space harms nowhere else."""
    return LexborHTMLParser(_CELL.sub(" <", _BREAK.sub("\n<", html)))


def _may_hide(lower: str) -> bool:
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


def _texts(tree: LexborHTMLParser, lower: str) -> list[tuple[str, bool]]:
    """(text, whether it is shown) of each piece of text, in order."""
    sheets = _sheet_styles(tree) if "<style" in lower else {}
    _strip_unseen(tree, lower)
    joined = _move_breaks(tree, sheets) if "style" in lower else set()
    styles: dict[int, Style] = {}
    shown: dict[int, bool] = {}
    texts = []
    for node in tree.root.traverse(include_text=True) if tree.root is not None else ():
        if not node.is_text_node:
            continue
        text = node.text_content or ""
        if joined and node.mem_id in joined:
            text = text[:-1]
        if text.isspace():
            texts.append((text, True))
            continue
        parent = node.parent
        key = parent.mem_id if parent is not None else 0
        if key not in shown:
            shown[key] = parent is None or _style_of(parent, styles, sheets).is_shown
        texts.append((text, shown[key]))
    return texts


def _move_breaks(tree: LexborHTMLParser, sheets: dict[int, dict[str, str]]) -> set[int]:
    """Break lines where ``display`` says so. The pieces of text (``mem_id``) whose last character is no break after all."""
    joined: set[int] = set()
    for node in (
        tree.css("*") if any("display" in rules or "float" in rules for rules in sheets.values()) else tree.css("[style]")
    ):
        declared = _declared(node.attributes, sheets.get(node.mem_id))
        display = declared.get("display", "")
        if display.startswith(("inline", "contents")) or declared.get("float", "none") != "none":
            if _BLOCK.fullmatch(node.tag or ""):
                joined.update(text.mem_id for text in (node.prev, node.last_child) if text is not None and text.is_text_node)
        elif display.startswith(("block", "flex", "grid", "list", "table", "flow")):
            node.insert_before("\n")
            node.insert_after("\n")
    return joined


def _style_of(element: LexborNode, styles: dict[int, Style], sheets: dict[int, dict[str, str]]) -> Style:
    """The style of the element, from its own attributes, the style sheets, and the elements around it."""
    path: list[LexborNode] = []
    here: LexborNode | None = element
    while here is not None and (style := styles.get(here.mem_id)) is None:
        path.append(here)
        here = here.parent
    style = styles[here.mem_id] if here is not None else Style()
    for node in reversed(path):
        attributes = node.attributes
        rules = sheets.get(node.mem_id)
        if rules or not _PLAIN_ATTRIBUTES.issuperset(attributes) or node.tag == "dialog":
            style = _styled(style, node.tag or "", attributes, _declared(attributes, rules))
        styles[node.mem_id] = style
    return style


def _bounded(html: str) -> str:
    """Cut where there are more tags, or more of them within each other, than may be; what nobody sees is not counted."""
    if html.count("<") <= MANY_TAGS and len(html) <= 8 * MANY_TAGS:
        return html
    html = _LONG_TAG.sub(r"<\1>", _without_unseen(html))
    depth = 0
    for number, tag in enumerate(_ANY_TAG.finditer(html)):
        depth += -1 if tag[1] else 1
        if depth > DEPTH or number > TAGS:
            return html[: tag.start()]
        depth = max(depth, 0)
    return html


def _without_unseen(html: str) -> str:
    """Without scripts and comments, in one pass; one that does not end goes to the end."""
    kept, here = [], 0
    while begin := _UNSEEN.search(html, here):
        kept.append(html[here : begin.start()])
        end = _ENDS[begin[1].lower() if begin[1] else None].search(html, begin.end())
        if end is None:
            return "".join(kept)
        here = end.end()
    return "".join([*kept, html[here:]])


def _declared(attributes: dict[str, str | None], rules: dict[str, str] | None) -> dict[str, str]:
    own = _declarations(attributes.get("style") or "") if "style" in attributes else {}
    return {**rules, **own} if rules else own


@lru_cache(maxsize=4096)
def _declarations(css: str) -> dict[str, str]:
    """The declarations of a block by property, as CSS reads them: without comments, escapes and case."""
    found: dict[str, str] = {}
    for item in tinycss2.parse_blocks_contents(css, skip_comments=True, skip_whitespace=True):
        if item.type == "declaration":
            found[item.lower_name] = _serialize(item.value)
    return found


def _serialize(tokens: list[Any]) -> str:
    return str(tinycss2.serialize([token for token in tokens if token.type != "comment"])).strip().lower()


def _sheet_styles(tree: LexborHTMLParser) -> dict[int, dict[str, str]]:
    """What the style sheets in ``tree`` declare, by the element's ``mem_id``; the later rule wins, whatever its specificity."""
    styles: dict[int, dict[str, str]] = {}
    for sheet in tree.css("style"):
        css = sheet.text(deep=True)[:SHEET_CHARACTERS]
        for selector, declared in _rules(css) if _SAYS_SOMETHING.search(css) else ():
            for node in _select(tree, selector):
                styles.setdefault(node.mem_id, {}).update(declared)
    return styles


def _rules(css: str) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in tinycss2.parse_stylesheet(css.replace("<!--", "").replace("-->", ""), skip_comments=True, skip_whitespace=True):
        if rule.type == "qualified-rule":
            yield str(tinycss2.serialize(rule.prelude)).strip(), _declarations(tinycss2.serialize(rule.content))
        elif rule.type == "at-rule" and rule.lower_at_keyword == "media" and _serialize(rule.prelude) in ("", "all", "screen"):
            yield from _rules(tinycss2.serialize(rule.content or []))  # what hangs on the width of a window is left alone


def _select(tree: LexborHTMLParser, selector: str) -> list[LexborNode]:
    try:
        return tree.css(selector)
    except (
        Exception
    ):  # selectolax raises its own error for what it cannot parse, as :hover or a broken selector: it selects nothing
        return []


def _styled(style: Style, tag: str, attributes: dict[str, str | None], declared: dict[str, str]) -> Style:
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
