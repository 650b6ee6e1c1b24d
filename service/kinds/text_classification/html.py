"""Extracts the visible text of HTML: without hidden text, and with line breaks where a browser shows them.

The parser (lexbor) follows the WHATWG HTML Standard. If a style sheet, a colour or an attribute may hide text, the style of
each element is computed (``service.kinds.text_classification.css``).
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from service.kinds.text_classification.css import STYLED_ELEMENTS, Style, apply_style, declarations_of, may_hide, rules_of

MAX_TAGS, DEPTH = 30_000, 300
"""Most tags, and deepest nesting, of a text that is parsed: the parser is quadratic in the depth of the tree."""
UNCHECKED_TAGS = 2000
"""With at most this many tags, nesting is harmless and not checked."""
TAG_CHARACTERS = 2000
"""Longer tags lose their attributes: the parser is quadratic in their number."""
MARKUP_PER_CHARACTER, MIN_MARKUP = 8, 4000
"""Characters of markup that are parsed first: per character of text requested, and at least."""

_NAMES = (
    r"!doctype|a|b(?:ig|lockquote|ody|r|utton)?|center|d(?:el|iv|[dlt])|em|fo(?:nt|rm)|h(?:ead|tml|r|[1-6])|i(?:frame|mg|ns|nput)?|li"
    r"|m(?:ark|arquee|eta)|no(?:br|script)|ol|p(?:re)?|s(?:cript|mall|pan|trike|trong|tyle|u[bp])?|t(?:able|body|emplate|itle|[dhrt])|ul?|wbr"
)
LOOKS_LIKE_HTML = re.compile(rf"</?(?:{_NAMES})(?=[\s/>])[^<>]*>", re.I | re.A)
"""A tag that mail uses; ``<address>`` and ``<time>`` also occur in plain text."""
_SCRIPT_OR_COMMENT = re.compile(r"<(?:(script)\b|!--)", re.I)
_ENDS = {"script": re.compile(r"</script[^<>]*>", re.I), None: re.compile("-->")}
_LONG_TAG = re.compile(rf"<(/?[a-z][\w:-]*)[^<>]{{{TAG_CHARACTERS},}}>", re.I)

_ANY_TAG = re.compile(
    r"<(/?)(?!(?:p|li|td|th|tr|tbody|dt|dd|option|br|hr|img|input|meta|link|wbr|area|base|col)[\s/>])[a-z]", re.I | re.A
)
"""A tag that requires an end tag: others are closed implicitly or are void."""

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


def visible_text(html: str, characters: int | None = None) -> str:
    """The text that a browser shows of ``html``, with blocks and rows on separate lines.

    ``characters``: how many of the text, without whitespace, are needed. The beginning of a long page is usually enough; then
    the rest is not parsed, unless it has a style sheet, which may affect the beginning.
    """
    if characters is not None:
        prefix_length = max(characters * MARKUP_PER_CHARACTER, MIN_MARKUP)
        if len(html) > prefix_length and "<style" not in html[prefix_length:].lower():
            text = _page_text(_bounded(html[: html.rfind("<", 0, prefix_length)]))
            if len("".join(text.split())) >= characters:
                return text
    return _page_text(_bounded(html))


def _page_text(html: str) -> str:
    tree, lower = _parse(html), html.lower()
    if tree.root is None:
        return ""
    if may_hide(lower):
        return "".join([text for text, shown in _text_pieces(tree, lower) if shown])
    _strip_not_shown(tree, lower)
    return tree.root.text(separator="")


def _strip_not_shown(tree: LexborHTMLParser, lower: str) -> None:
    """Remove the elements that browsers do not show; searching for each costs a walk through the tree."""
    if tags := [tag for tag in _NOT_SHOWN if f"<{tag}" in lower]:
        tree.strip_tags(tags)


def hidden_share(html: str) -> float:
    """The share of the text characters of ``html`` (without whitespace) that are hidden, 0 to 1."""
    html = _bounded(html)
    lower = html.lower()
    if not may_hide(lower):
        return 0.0
    counts = [0, 0]
    for text, shown in _text_pieces(_parse(html), lower):
        counts[shown] += len("".join(text.split()))
    return counts[0] / max(1, sum(counts))


def _parse(html: str) -> LexborHTMLParser:
    """Parse, with line feeds added around blocks and spaces around cells; extra whitespace is harmless elsewhere."""
    return LexborHTMLParser(_CELL.sub(" <", _BREAK.sub("\n<", html)))


def _text_pieces(tree: LexborHTMLParser, lower: str) -> list[tuple[str, bool]]:
    """(text, whether it is shown) of each text node, in order."""
    sheets = _sheet_styles(tree) if "<style" in lower else {}
    _strip_not_shown(tree, lower)
    unbroken = _move_breaks(tree, sheets) if "style" in lower else set()
    styled_nodes = {node.mem_id for node in tree.css(STYLED_ELEMENTS)} | sheets.keys()
    styles: dict[int, Style] = {}
    shown: dict[int, bool] = {}
    pieces = []
    for node in tree.root.traverse(include_text=True) if tree.root is not None else ():
        if not node.is_text_node:
            continue
        text = node.text_content or ""
        if unbroken and node.mem_id in unbroken:
            text = text[:-1]
        if text.isspace():
            pieces.append((text, True))
            continue
        parent = node.parent
        key = parent.mem_id if parent is not None else 0
        if key not in shown:
            shown[key] = parent is None or _style_of(parent, styles, styled_nodes, sheets).is_shown
        pieces.append((text, shown[key]))
    return pieces


def _move_breaks(tree: LexborHTMLParser, sheets: dict[int, dict[str, str]]) -> set[int]:
    """Move line breaks according to ``display``. Returns the text nodes (``mem_id``) whose last character is to be removed."""
    unbroken: set[int] = set()
    for node in (
        tree.css("*") if any("display" in rules or "float" in rules for rules in sheets.values()) else tree.css("[style]")
    ):
        declarations = declarations_of(node.attributes, sheets.get(node.mem_id))
        display = declarations.get("display", "")
        if display.startswith(("inline", "contents")) or declarations.get("float", "none") != "none":
            if _BLOCK.fullmatch(node.tag or ""):
                unbroken.update(text.mem_id for text in (node.prev, node.last_child) if text is not None and text.is_text_node)
        elif display.startswith(("block", "flex", "grid", "list", "table", "flow")):
            node.insert_before("\n")
            node.insert_after("\n")
    return unbroken


def _style_of(
    element: LexborNode, styles: dict[int, Style], styled_nodes: set[int], sheets: dict[int, dict[str, str]]
) -> Style:
    """The style of the element, from its attributes, the style sheets, and its ancestors.

    ``styled_nodes``: the elements (``mem_id``) that may change the style; ``styles``: a cache.
    """
    path: list[LexborNode] = []
    ancestor: LexborNode | None = element
    while ancestor is not None and (style := styles.get(ancestor.mem_id)) is None:
        path.append(ancestor)
        ancestor = ancestor.parent
    style = styles[ancestor.mem_id] if ancestor is not None else Style()
    for node in reversed(path):
        key = node.mem_id
        if key in styled_nodes:
            attributes = node.attributes
            style = apply_style(style, node.tag or "", attributes, declarations_of(attributes, sheets.get(key)))
        styles[key] = style
    return style


def _bounded(html: str) -> str:
    """Cut at the limits of tags and nesting, which do not count scripts and comments."""
    has_many_tags = html.count("<") > UNCHECKED_TAGS
    if has_many_tags:
        html = _without_scripts_and_comments(html)
    if len(html) > TAG_CHARACTERS and max(map(len, html.split("<"))) > TAG_CHARACTERS:
        html = _LONG_TAG.sub(r"<\1>", html)
    if not has_many_tags:
        return html
    depth = 0
    for number, tag in enumerate(_ANY_TAG.finditer(html)):
        depth += -1 if tag[1] else 1
        if depth > DEPTH or number > MAX_TAGS:
            return html[: tag.start()]
        depth = max(depth, 0)
    return html


def _without_scripts_and_comments(html: str) -> str:
    """Remove scripts and comments in one pass; an unterminated one extends to the end."""
    pieces, position = [], 0
    while match := _SCRIPT_OR_COMMENT.search(html, position):
        pieces.append(html[position : match.start()])
        end = _ENDS[match[1].lower() if match[1] else None].search(html, match.end())
        if end is None:
            return "".join(pieces)
        position = end.end()
    return "".join([*pieces, html[position:]])


def _sheet_styles(tree: LexborHTMLParser) -> dict[int, dict[str, str]]:
    """Declarations of the style sheets by the element's ``mem_id``; the later rule wins, regardless of specificity."""
    styles: dict[int, dict[str, str]] = {}
    for sheet in tree.css("style"):
        for selector, declarations in rules_of(sheet.text(deep=True)):
            for node in _select(tree, selector):
                styles.setdefault(node.mem_id, {}).update(declarations)
    return styles


def _select(tree: LexborHTMLParser, selector: str) -> list[LexborNode]:
    try:
        return tree.css(selector)
    except (
        Exception
    ):  # selectolax raises its own error for unsupported selectors, as :hover, and broken ones: they select nothing
        return []
