"""service/kinds/text_classification/html.py: what a browser shows is text, and what is hidden is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.kinds.text_classification.descriptors import describe
from service.kinds.text_classification.html import DEPTH, hidden_share, visible_text


def words(html: str) -> str:
    """The visible text, its blanks and lines as one blank each."""
    return " ".join(visible_text(html).split())


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>F<b>r</b>ee m<!-- x -->oney, <span>N</span>o one</p><p>next</p>", "Free money, No one next"),
        ("".join(f"<span>{letter}</span>" for letter in "Free money"), "Free money"),
        ("F<wbr>r<i></i>e<font color=red size=2>e</font>", "Free"),
        ("<a href=x>F</a><tt>r</tt><o:p>e</o:p><custom-tag>e</custom-tag>", "Free"),
        ("one<br>two<br/>three<hr>four", "one two three four"),
        ("<div>one</div><div>two</div>", "one two"),
        ("<table><tr><td>one</td><td>two</td></tr><tr><th>three</th></tr></table>four", "one two three four"),
        ("<ul><li>one<li>two</ul><h1>three</h1>four<blockquote>five</blockquote>", "one two three four five"),
        ("<select><option>one<option>two</select><textarea>three</textarea>", "one two three"),
        ("a &lt; b &amp; c&nbsp;d &#65;&#x42;", "a < b & c d AB"),
        ('<p title="<br>x">one</p>', "one"),
        ("<div style='display:inline'>F</div><div style='display:inline'>ree</div>", "Free"),
        ("x<span style='display:block'>one</span>two", "x one two"),
        ("<style>div {display: inline}</style><div>F</div><div>ree</div>", "Free"),
        ("<title>title</title><script>s</script><style>t</style><template>m</template>one", "one"),
        ("<body><noscript>no program that reads mail runs scripts</noscript>", "no program that reads mail runs scripts"),
        ("<iframe>i</iframe><object>o</object>one", "one"),
        ("<p>one", "one"),
        ("", ""),
    ],
)
def test_blanks_stand_where_a_browser_shows_them(html: str, expected: str) -> None:
    assert words(html) == expected
    assert hidden_share(html) == 0


HIDDEN = [
    *(
        f'<div style="{style}">hidden</div>'
        for style in (
            "display:none", "DISPLAY : NONE !important", "d\\69splay:/**/n\\6fne", "visibility:hidden",
            "visibility: collapse", "opacity:0", "opacity: 0.0",
            "opacity:.01", "opacity:0%", "font-size:0", "font-size:0px", "font-size: 1px", "font-size:.1em", "font:0/0 a",
            "font: 1px arial",
            "height:0;overflow:hidden", "max-height:0px;overflow:hidden", "width:0;height:0", "max-height:0;max-width:0",
            "mso-hide:all",
            "text-indent:-9999px", "position:absolute;left:-9999px", "position:fixed;top:-900em", "clip:rect(0,0,0,0)",
            "clip-path:inset(50%)",
            "transform:scale(0)", "color:transparent", "color:rgba(0,0,0,0)", "color:white", "color:#fff", "color:#FEFEFE",
            "color:rgb(255,255,255)",
            "color:hsl(0,0%,100%)", "background:#000", "background-color:black", "color:red;background:red",
        )
    ),
    "<font color=white>hidden</font>", '<font color="#ffffff">hidden</font>', "<font color=ffffff>hidden</font>",
    "<p hidden>hidden</p>",
    '<p hidden="until-found">hidden</p>', "<table bgcolor=navy><tr><td><font color=navy>hidden</font></td></tr></table>",
    "<dialog>hidden</dialog>", "<style>.x{display:none}</style><p class=x>hidden</p>",
    "<style>#y{color:#fff}</style><p id=y>hidden</p>",
    "<style>@media screen {p > b {font-size:0}}</style><p><b>hidden</b></p>",
    "<div style='display:none'><p>hid<b>den</b></p></div>",
    "<div style='opacity:0'><span style='color:red'>hidden</span></div>",
]  # fmt: skip


@pytest.mark.parametrize("html", HIDDEN)
def test_what_is_hidden_is_no_text_but_its_share_is_known(html: str) -> None:
    assert words(f"{html}shown") == "shown"
    assert words(html) == ""
    assert hidden_share(f"{html}shown") == pytest.approx(6 / 11)
    assert describe(f"Subject\x1c{html}shown", 0.0)["hidden_share"] == pytest.approx(6 / 11)


@pytest.mark.parametrize(
    "html",
    [
        "<p style='font-size:10px'>shown</p>", "<p style='font-size:1.0em'>shown</p>",
        "<p style='font-size:100%'>shown</p>", "<p style='font:12px x'>shown</p>",
        "<p style='opacity:0.9'>shown</p>", "<p style='height:0'>shown</p>", "<p style='width:100%;overflow:hidden'>shown</p>",
        "<p style='position:absolute;left:10px'>shown</p>", "<p style='text-indent:-2em'>shown</p>",
        "<input type=hidden value=x>shown",
        "<body bgcolor=black text=white>shown", "<table bgcolor=navy><tr><td><font color=white>shown</font></td></tr></table>",
        "<body background=x.gif><font color=white>shown</font>",
        "<div style='background:url(x.gif) white;color:white'>shown</div>",
        "<div style='visibility:hidden'><b style='visibility:visible'>shown</b></div>", "<dialog open>shown</dialog>",
        "<div style='font-size:0'><span style='font-size:12px'>shown</span></div>",
        "<div style='color:white'><b style='color:#333'>shown</b></div>",
        "<style>@media (max-width:300px) {p {display:none}}</style><p>shown</p>",
        "<style>a:hover {color:white}</style><p>shown</p>",
        "<style>!!{{ broken</style><p>shown</p>", "<p style='color'>shown</p>",
        "<p style='color:nonsense;display:'>shown</p>", "<p aria-hidden=true>shown</p>",
        "<font size=1>shown</font>", "<div style='background:#000;color:#fff'>shown</div>",
    ],
)  # fmt: skip
def test_what_is_shown_is_not_taken_for_hidden(html: str) -> None:
    assert words(html) == "shown"
    assert hidden_share(html) == 0


def test_words_beside_a_hidden_block_stay_apart() -> None:
    assert words("one<div style='display:none'>x</div>two") == "one two"
    assert words("Fr<span style='display:none'>x</span>ee") == "Free"


@pytest.mark.parametrize(
    "filler", ["<i></i>", "<p style='display:none'>hidden words</p>", "<!-- x -->", "<style>p {color: red}</style>", "<br>"]
)
def test_filler_does_not_push_the_words_out_of_sight(filler: str) -> None:
    page = "<html>" + filler * (40_000 // len(filler)) + "<p>Buy now</p>"
    assert words(page).endswith("Buy now")


def test_a_page_is_cut_where_its_tree_gets_too_deep() -> None:
    assert words("<div>" * 5000 + "deep") == ""
    assert words("seen" + "<div>" * (DEPTH - 10) + " too" + "</div>" * 3000 + "<div>x</div>" * 3000).startswith("seen too x")
    assert words("<span>a</span>" * 9000).count("a") == 9000


@pytest.mark.parametrize("filler", ["<p>word</p>", "word ", "<!-- x -->"])
def test_a_style_sheet_hides_in_a_long_page_too(filler: str) -> None:
    page = "<style>.q {visibility: hidden}</style><div class=q>secret</div>" + filler * (60_000 // len(filler))
    assert "secret" not in words(page)
    assert "secret" not in visible_text(page, 4000)
    assert hidden_share(page) > 0


def test_enough_of_a_long_page_is_as_the_page_begins() -> None:
    page = "<html>" + "<p>some words</p>" * 5000
    begin = visible_text(page, 400)
    assert visible_text("<html>" + "<p>some words</p>" * 2900).startswith(begin)
    assert len(begin) < 4000
    late = page[:6000] + "<style>p {display: none}</style>"
    assert visible_text(late, 400).split() == [], "a style sheet at the end says something of the beginning"


PIECES = [
    "<p>", "</p>", "<b>", "</div>", "<div hidden>", "<style>", "</style>", "<!--", "-->", "<td>", "word ", "&amp;",
    "<font color=", "<p style='color:white'>", "\0", "<", ">", "{color:white}", "<table>", "<svg>", "<p style=x\\",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25))
def test_any_markup_is_some_text(pieces: list[str]) -> None:
    html = "".join(pieces)
    assert isinstance(visible_text(html), str)
    assert 0 <= hidden_share(html) <= 1
