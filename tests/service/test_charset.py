"""service/charset.py: what a label means, and what is done where it lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.charset import codec_of, decode
from service.kinds.text_classification.mail import parse_mail

RUSSIAN = "Добрый день, счёт готов, ждём оплаты"
JAPANESE = "こんにちは、元気ですか"


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gb18030"), ("GB_2312-80", "gb18030"), ("x-gbk", "gb18030"), ("cp936", "gb18030"), ("iso-8859-1", "cp1252"),
        ("US-ASCII", "cp1252"), ("latin1", "cp1252"), ("ansi_x3.4-1968", "cp1252"), ("ks_c_5601-1987", "cp949"), ("x-sjis",
        "cp932"),
        ("iso-8859-9", "cp1254"), ("tis-620", "cp874"), ("iso-8859-8-i", "iso8859-8"), ("macintosh", "mac-roman"),
        ("cp-850", "cp850"),
        ('"utf-8"', "utf-8"), ("utf-8*en", "utf-8"), ("utf8mb4", "utf-8"), ("UTF_8", "utf-8"), ("iso-8859-1;", "cp1252"),
        ("hz-gb-2312", "hz"), ("win-1251", "cp1251"), ("big5-hkscs", "big5hkscs"),
        *((unknown, None) for unknown in ("punycode", "idna", "base64", "rot13", "x-unknown", "", "undefined",
        "unicode_escape")),
    ],
)  # fmt: skip
def test_labels_mean_what_the_encoding_standard_says(label: str, codec: str | None) -> None:
    assert codec_of(label) == codec


@pytest.mark.parametrize(
    ("text", "codec", "label"),
    [
        ("您好，朱镕基，發票已开", "gb18030", "gb2312"),
        ("裏面有碁盤，€5", "cp950", "big5"),
        ("펲시콜라 똠방각하 할인", "cp949", "euc-kr"),
        ("①月の髙橋様へ㈱", "cp932", "shift_jis"),
        ("don’t – “pay” 50 €", "cp1252", "iso-8859-1"),
        ("don’t – “pay” 50 €", "cp1252", "us-ascii"),
        ("שלום לכולם", "iso8859-8", "iso-8859-8-i"),
        ("Türkçe “şğıö”", "cp1254", "iso-8859-9"),
        (JAPANESE, "iso2022_jp", "iso-2022-jp"),
        ("안녕하세요", "iso2022_kr", "iso-2022-kr"),
        ("你好世界", "hz", "hz-gb-2312"),
        ("hello 你好", "utf-7", "utf-7"),
        (RUSSIAN, "utf-16-be", "utf-16"),
        (RUSSIAN, "utf-16-le", "utf-16"),
        ("plain words", "utf-16-le", "utf-16le"),
        ("漢字の文", "utf-16-be", "utf-16be"),
        ("plain words", "utf-32-be", "utf-32"),
        ("Привет", "cp866", "cp866"),
        ("Grüße", "cp850", "ibm850"),
    ],
)
def test_a_true_label_is_believed(text: str, codec: str, label: str) -> None:
    assert decode(text.encode(codec), label) == (text, None)


@pytest.mark.parametrize(
    ("text", "codec", "label", "warning"),
    [
        ("Grüße", "utf-8", "us-ascii", "charset_wrong"),
        ("Grüße", "utf-8", "iso-8859-1", "charset_wrong"),
        ("Grüße aus Köln", "utf-8", "gb2312", None),  # so few letters may be of either
        ("你好世界", "utf-8", "gb2312", "charset_wrong"),
        ("Grüße", "cp1252", "no-such-charset", "charset_unknown"),
        ("Grüße", "cp1252", None, "charset_undeclared"),
        ("Grüße", "utf-8", None, "charset_undeclared"),
        ("£5 off", "cp1252", None, "charset_undeclared"),
        (RUSSIAN, "koi8-r", None, "charset_undeclared"),
        (RUSSIAN, "cp1251", "utf-8", "charset_wrong"),
        (RUSSIAN, "cp1251", "x-unknown", "charset_unknown"),
        ("żółć pięść źdźbło", "cp1250", "iso-8859-2", "charset_wrong"),
        ("您好，朱镕基，发票已开，欢迎来电", "gb18030", None, "charset_undeclared"),
        (JAPANESE, "iso2022_jp", "utf-8", "charset_wrong"),
        (JAPANESE, "iso2022_jp", "us-ascii", "charset_wrong"),
        (JAPANESE, "iso2022_jp", None, "charset_undeclared"),
        ("안녕하세요", "iso2022_kr", None, "charset_undeclared"),
        ("all of it is plain", "ascii", "utf-16", "charset_wrong"),
        ("all of it is plain", "ascii", "utf-16le", "charset_wrong"),
        ("all of it is plain", "ascii", "utf-32", "charset_wrong"),
        ("plain words", "utf-16-le", None, "charset_undeclared"),
        ("plain words", "utf-16-be", "utf-8", "charset_wrong"),
    ],
)
def test_a_label_that_lies(text: str, codec: str, label: str | None, warning: str | None) -> None:
    read, told = decode(text.encode(codec), label)
    if warning is not None:
        assert read == text
    assert told == warning


def test_japanese_of_windows_in_seven_bits() -> None:
    """NEC's row 13, which mail uses and the standard's table does not hold."""
    assert decode(b"\x1b$B-!7n$NMM$X-j\x1b(B", "iso-2022-jp") == ("①月の様へ㈱", None)


@pytest.mark.parametrize(
    ("data", "label"),
    [("中文信件".encode("big5") + b"\xff", "big5"), ("Hi café ".encode() + b"\xff", "utf-8"), (b"\x1b$B\xff", "iso-2022-jp")],
)
def test_a_few_broken_bytes_do_not_make_it_another_charset(data: bytes, label: str) -> None:
    text, warning = decode(data, label)
    assert "\ufffd" in text
    assert "中文" in text or "café" in text or label == "iso-2022-jp"
    assert warning == "charset_broken"


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_outranks_the_label(mark: str) -> None:
    assert decode(RUSSIAN.encode(mark), "iso-8859-1") == (RUSSIAN, None)


def test_c1_controls_are_the_sign_of_a_wrong_guess() -> None:
    assert decode("don\u0092t".encode(), "utf-8")[0] == "don’t"
    assert decode(b"don\x92t \x96 \x93x\x94", "iso-8859-15")[0] == "don’t – “x”"


@pytest.mark.parametrize(
    "meta",
    [
        '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">',
        "<META charset=windows-1251>",
        "<meta charset='windows-1251' />",
        "<!doctype html><head><title>x</title><meta name=a content=b><meta charset=windows-1251>",
    ],
)
def test_html_may_name_its_charset_itself(meta: str) -> None:
    page = f"{meta}<p>Да".encode("cp1251")
    for label in (b"", b"; charset=x-unknown", b"; charset=utf-8"):
        assert parse_mail(b"Content-Type: text/html" + label + b"\n\n" + page).text.endswith("<p>Да")
    assert not parse_mail(b"Content-Type: text/plain\n\n" + page).text.endswith("<p>Да")


@given(
    st.binary(max_size=200),
    st.one_of(st.none(), st.sampled_from(["utf-8", "utf-16", "utf-7", "big5", "hz", "iso-2022-jp", "x", "\0"])),
)
def test_any_bytes_are_some_text(data: bytes, label: str | None) -> None:
    text, _ = decode(data, label, markup=True)
    assert isinstance(text, str)


@given(st.text(st.characters(codec="cp1251", min_codepoint=32), max_size=80))
def test_what_is_declared_truly_is_read_exactly(text: str) -> None:
    data = text.encode("cp1251")
    if not any(letter > "\x7f" for letter in text) or b"\x98" in data:
        return
    try:
        data.decode()
    except UnicodeDecodeError:
        assert decode(data, "windows-1251") == (text, None)
