"""service/text.py: what a model must not see."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.text import STEPS, Normaliser, document

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
    assert ALL("if a < b and b > c: print") == "if a < b and b > c: print"


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
    with pytest.raises(ValueError, match="'spellcheck'; there are unicode, html"):
        Normaliser(("spellcheck",), (), 10)


def test_text_whose_lower_case_is_longer_survives_the_footer_step() -> None:
    assert "İstanbul" in STEPS["footers"]("İstanbul\n_______________\nx mailing list\n")


def test_every_word_that_footers_look_for_holds_a_hint() -> None:
    from service.text import _LIST_HINTS, _LIST_WORDS, _TRAILERS

    assert all(any(hint in word for hint in _LIST_HINTS) for word in (*_LIST_WORDS, *_TRAILERS))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_loses_its_control_characters_and_nothing_else(text: str) -> None:
    kept = (letter for letter in text.replace("\r\n", "\n").replace("\r", "\n") if letter.isprintable() or letter in "\n\t")
    assert STEPS["unicode"](text) == "".join(kept)


@pytest.mark.parametrize(
    "line", ["X-Spam-Status: No", "> Received: from here", "  List-Id : a list", "Message-ID:", "Date: Mon"]
)
def test_header_lines_go_whole_and_their_neighbours_stay(line: str) -> None:
    assert STEPS["headers"](f"one: 1\n{line}\nDates: two") == "one: 1\nDates: two"
    assert STEPS["headers"](f"see {line}\nX-ray") == f"see {line}\nX-ray"
