"""What a browser shows of HTML: the text, without what is hidden, and with line breaks where a reader sees them.

The parser (lexbor) follows the WHATWG HTML Standard. Where a style sheet, a colour or an attribute may hide text, the style
of each element is computed (``service.css``).
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from service.css import TELLING, Style, declared_by, may_hide, rules_of, styled

TAGS, DEPTH = 30_000, 300
"""How many tags of a text, and how many within each other, are looked at: the parser takes the square of a tree's depth."""
MANY_TAGS = 2000
"""So many are harmless whatever they are, and not looked at beforehand."""
TAG_CHARACTERS = 2000
"""A longer tag loses its attributes: the parser takes the square of their number."""
MARKUP, FIRST_LOOK = 8, 4000
"""Characters of markup that are looked at first for each character of text that is asked for, and at least."""

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
    if may_hide(lower):
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
    if not may_hide(lower):
        return 0.0
    letters = [0, 0]
    for text, shown in _texts(_parsed(html), lower):
        letters[shown] += len("".join(text.split()))
    return letters[0] / max(1, sum(letters))


def _parsed(html: str) -> LexborHTMLParser:
    """The tree, with a line feed at the edges of blocks and a blank at those of cells: white space harms nowhere else."""
    return LexborHTMLParser(_CELL.sub(" <", _BREAK.sub("\n<", html)))


def _texts(tree: LexborHTMLParser, lower: str) -> list[tuple[str, bool]]:
    """(text, whether it is shown) of each piece of text, in order."""
    sheets = _sheet_styles(tree) if "<style" in lower else {}
    _strip_unseen(tree, lower)
    joined = _move_breaks(tree, sheets) if "style" in lower else set()
    styled_nodes = {node.mem_id for node in tree.css(TELLING)} | sheets.keys()
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
            shown[key] = parent is None or _style_of(parent, styles, styled_nodes, sheets).is_shown
        texts.append((text, shown[key]))
    return texts


def _move_breaks(tree: LexborHTMLParser, sheets: dict[int, dict[str, str]]) -> set[int]:
    """Break lines where ``display`` says so. The pieces of text (``mem_id``) whose last character is no break after all."""
    joined: set[int] = set()
    for node in (
        tree.css("*") if any("display" in rules or "float" in rules for rules in sheets.values()) else tree.css("[style]")
    ):
        declared = declared_by(node.attributes, sheets.get(node.mem_id))
        display = declared.get("display", "")
        if display.startswith(("inline", "contents")) or declared.get("float", "none") != "none":
            if _BLOCK.fullmatch(node.tag or ""):
                joined.update(text.mem_id for text in (node.prev, node.last_child) if text is not None and text.is_text_node)
        elif display.startswith(("block", "flex", "grid", "list", "table", "flow")):
            node.insert_before("\n")
            node.insert_after("\n")
    return joined


def _style_of(
    element: LexborNode, styles: dict[int, Style], styled_nodes: set[int], sheets: dict[int, dict[str, str]]
) -> Style:
    """The style of the element, from its own attributes, the style sheets, and the elements around it.

    ``styled_nodes``: the elements (``mem_id``) that have anything to say; ``styles``: what is known already.
    """
    path: list[LexborNode] = []
    here: LexborNode | None = element
    while here is not None and (style := styles.get(here.mem_id)) is None:
        path.append(here)
        here = here.parent
    style = styles[here.mem_id] if here is not None else Style()
    for node in reversed(path):
        key = node.mem_id
        if key in styled_nodes:
            attributes = node.attributes
            style = styled(style, node.tag or "", attributes, declared_by(attributes, sheets.get(key)))
        styles[key] = style
    return style


def _bounded(html: str) -> str:
    """Cut where there are more tags, or more of them within each other, than may be; what nobody sees is not counted."""
    many = html.count("<") > MANY_TAGS
    if many:
        html = _without_unseen(html)
    if len(html) > TAG_CHARACTERS and max(map(len, html.split("<"))) > TAG_CHARACTERS:
        html = _LONG_TAG.sub(r"<\1>", html)
    if not many:
        return html
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


def _sheet_styles(tree: LexborHTMLParser) -> dict[int, dict[str, str]]:
    """What the style sheets in ``tree`` declare, by the element's ``mem_id``; the later rule wins, whatever its specificity."""
    styles: dict[int, dict[str, str]] = {}
    for sheet in tree.css("style"):
        for selector, declared in rules_of(sheet.text(deep=True)):
            for node in _select(tree, selector):
                styles.setdefault(node.mem_id, {}).update(declared)
    return styles


def _select(tree: LexborHTMLParser, selector: str) -> list[LexborNode]:
    try:
        return tree.css(selector)
    except (
        Exception
    ):  # selectolax raises its own error for what it cannot parse, as :hover or a broken selector: it selects nothing
        return []
