"""service/kinds/text_classification/text.py: what a model must not see."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.kinds.text_classification.text import STEPS, Normaliser, document

ALL = Normaliser(tuple(STEPS), ("taint.org",), 4000)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_normalising_twice_changes_nothing_more_of_plain_text(text: str) -> None:
    plain = Normaliser(("unicode", "whitespace"), (), 4000)
    assert plain(plain(text)) == plain(text)


def test_html_becomes_its_visible_text() -> None:
    head = "<html><head><style>p {color: red}</style><script>var x = 1</script></head>"
    page = head + "<body><p>Buy&nbsp;<b>now</b></p></body></html>"
    assert ALL(page).split() == ["Buy", "now"]
    assert ALL("see <address> and <time>, List<String>") == "see <address> and <time>, List<String>"
    assert ALL("if a < b and b > c: print") == "if a < b and b > c: print"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("F\u200bree m\u00adoney pi\u200clls", "Free money pills"),
        ("<p>F&#8203;ree m&shy;oney &#65318;&#65330;&#65317;&#65317; pi&zwnj;lls</p>", "Free money FREE pills"),
        ("\u2067mo\u034fney\u2069 pi\u180ells \U000e0041x", "money pills x"),
        ("a\u061cb\u115fc\u17b4d\u3164e\ufe0ff\uffa0g\U000e0100h\u206ai\ufff9j", "abcdefghij"),
        ("\u202efree\u202c \u2066money\u2069", "free money"),
        ("one\u2028two\u2029three\x0cfour\x0bfive\x85six\rseven\r\neight", "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight"),
        ("𝐅𝐫𝐞𝐞 ⓜⓞⓝⓔⓨ ﬁne", "Free money fine"),
        ("Frее mоnеу", "Free money"),
        ("Ϝree mοneγ", "Free money"),
        ("МОNЕY РRIZE", "MONEY PRIZE"),
        ("расе", "pace"),
        ("Привет, расе и мир", "Привет, расе и мир"),
        ("Ελληνικά και τοπος", "Ελληνικά και τοπος"),
        ("中文 Größe naïve", "中文 Größe naïve"),
    ],
)
def test_what_nobody_sees_is_gone_and_what_looks_alike_is_alike(text: str, expected: str) -> None:
    assert ALL(text) == expected


def test_every_default_ignorable_code_point_is_invisible() -> None:
    """All that Unicode's DerivedCoreProperties.txt lists, by ranges."""
    ranges = (
        "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff ffa0 fff0-fff8"
        " 1bca0-1bca3 1d173-1d17a e0000-e0fff"
    )
    for piece in ranges.split():
        first, _, last = piece.partition("-")
        for code in range(int(first, 16), int(last or first, 16) + 1):
            assert ALL(f"mo{chr(code)}ney") == "money", hex(code)


def test_a_text_is_looked_at_further_where_its_beginning_is_blank() -> None:
    assert ALL("\n" * 20_000 + "words") == "words"
    assert len(ALL("word " * 10_000)) == 4000


@pytest.mark.parametrize("unseen", ["<style>{}</style>", "<SCRIPT type=x>{}</script >", "<!--{}-->"])
def test_what_nobody_sees_does_not_push_the_words_out_of_sight(unseen: str) -> None:
    assert ALL("<html>" + unseen.format("p {color: red}\n" * 9000) + "<p>Buy now</p>").split() == ["Buy", "now"]
    assert ALL("Buy now <p>" + unseen.split("{}")[0] + "x" * 40_000).split() == ["Buy", "now"], "it never ends"
    assert len(ALL("<style " * 300_000)) <= 4000


def test_leaks_are_gone() -> None:
    text = document(
        "Re: [ILUG] kernel question",
        "X-Spam-Status: No, hits=1\nReal words here about taint.org\nwrite to me@example.com now\n"
        "_______________________________________________\nIlug mailing list\nhttp://www.linux.ie/mailman/listinfo/ilug\n",
    )
    seen = ALL(text)
    for leak in ("ILUG", "Ilug", "X-Spam", "taint", "me@example", "listinfo", "____"):
        assert leak not in seen
    for kept in ("Re: kernel question", "Real words here about", "emailaddress"):
        assert kept in seen


def test_a_ruled_line_in_the_middle_of_a_long_text_is_no_footer() -> None:
    text = "first part\n----------\nthe mailing list is fine\n" + "much more text follows here\n" * 60
    assert "first part" in ALL(text)
    assert "much more text" in ALL(text)


def test_length_is_bounded_and_unknown_steps_are_named() -> None:
    assert len(Normaliser(("whitespace",), (), 10)("word " * 100)) == 10
    with pytest.raises(ValueError, match="'spellcheck'; there are html, unicode"):
        Normaliser(("spellcheck",), (), 10)


def test_text_whose_lower_case_is_longer_survives_the_footer_step() -> None:
    assert "İstanbul" in STEPS["footers"]("İstanbul\n_______________\nx mailing list\n")


def test_every_word_that_footers_look_for_holds_a_hint() -> None:
    from service.kinds.text_classification.text import _LIST_HINTS, _LIST_WORDS, _TRAILERS

    assert all(any(hint in word for hint in _LIST_HINTS) for word in (*_LIST_WORDS, *_TRAILERS))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_loses_its_control_characters_and_nothing_else(text: str) -> None:
    lines = re.sub("\r\n|[\r\v\f\x1c-\x1e]", "\n", text)
    kept = (letter for letter in lines if letter.isprintable() or letter in "\n\t")
    assert STEPS["unicode"](text) == "".join(kept)


@pytest.mark.parametrize(
    "line", ["X-Spam-Status: No", "> Received: from here", "  List-Id : a list", "Message-ID:", "Date: Mon"]
)
def test_header_lines_go_whole_and_their_neighbours_stay(line: str) -> None:
    assert STEPS["headers"](f"one: 1\n{line}\nDates: two") == "one: 1\nDates: two"
    assert STEPS["headers"](f"see {line}\nX-ray") == f"see {line}\nX-ray"
