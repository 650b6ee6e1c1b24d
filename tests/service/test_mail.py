"""mail.py and mime.py: real mail's lies. What a mail program would show is read, and what is wrong is told."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.kinds.text_classification.mail import parse_mail
from service.kinds.text_classification.mime import HEADER_BYTES, PARTS
from service.kinds.text_classification.text import PART, STEPS, Normaliser, document

ALL = Normaliser(tuple(STEPS), ("taint.org",), 4000)
DATE = b"Date: Thu, 22 Aug 2002 15:00:00 +0000\n"
BODY = "Tomato seedlings ship on Monday."
CODED = base64.b64encode(BODY.encode())


def flaws(raw: bytes) -> list[str]:
    """The warnings but for those about the time."""
    return [name for name in parse_mail(raw).warnings if not name.startswith("time")]


def seen(raw: bytes) -> str:
    """The text that a model sees of the message."""
    mail = parse_mail(raw)
    return ALL(document(mail.subject, mail.text))


def test_envelope_time_wins_over_a_date_header_that_lies() -> None:
    raw = b"From a@b.c  Thu Aug 22 13:17:22 2002\nDate: Mon, 1 Jan 2028 00:00:00 +0000\nSubject: hi\n\nbody\n"
    mail = parse_mail(raw)
    assert mail.received == datetime(2002, 8, 22, 13, 17, 22, tzinfo=UTC)
    assert (mail.subject, mail.text, mail.warnings) == ("hi", "body", ())


def test_without_an_envelope_the_newest_received_header_counts_then_the_date() -> None:
    received = (
        b"Received: from x by y; Thu, 22 Aug 2002 15:00:00 +0200\nReceived: from w by x; Wed, 21 Aug 2002 01:00:00 +0000\n"
    )
    date = b"Date: Tue, 20 Aug 2002 01:00:00 +0000\n"
    assert parse_mail(received + date + b"\nx").received == datetime(2002, 8, 22, 13, 0, tzinfo=UTC)
    by_date = parse_mail(date + b"\nx")
    assert by_date.received == datetime(2002, 8, 20, 1, 0, tzinfo=UTC)
    assert by_date.warnings == ("time_from_date",)
    assert parse_mail(b"Date: whenever\n\nx").warnings == ("time_missing",)


def test_years_that_no_mail_is_from_are_no_time() -> None:
    assert parse_mail(b"Date: Fri, 31 Dec 9999 23:59:59 +0000\n\nx").warnings == ("time_missing",)
    assert parse_mail(b"From a  Thu Aug 22 13:17:22 0102\n\nx").received is None


HEADER = DATE + b"Subject: order\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + HEADER + b"Content-Transfer-Encoding: base64\n\n" + CODED,
        b"\xef\xbb\xbf\xef\xbb\xbf\r\n" + (HEADER + b"\n" + BODY.encode()).replace(b"\n", b"\r\n"),
        (HEADER.decode() + "\n" + BODY).encode("utf-16"),
        b"\xfe\xff" + (HEADER.decode() + "\n" + BODY).encode("utf-16-be"),
        b"\n\n \n" + HEADER + b"\n" + BODY.encode(),
        b">From x@y.z Thu Aug 22 13:17:22 2002\n" + HEADER + b"\n" + BODY.encode(),
        b"From x@y.z Thu Aug 22 13:17:22 2002\n>From a b\n" + HEADER + b"\n" + BODY.encode(),
        b"\xef\xbb\xbfFrom x@y.z Thu Aug 22 13:17:22 2002\n" + HEADER + b"\n" + BODY.encode(),
        b"Microsoft Mail Internet Headers Version 2.0\n" + HEADER + b"\n" + BODY.encode(),
        HEADER.replace(b"Subject", b"Some Gateway Internet Headers Version 2.0\nSubject") + b"\n" + BODY.encode(),
        HEADER.replace(b"Subject", b"\xef\xbb\xbfSubject") + b"\n" + BODY.encode(),
        HEADER.replace(b"Subject", b"one\ntwo three\n\xff\xfe\nSubject") + b"\n" + BODY.encode(),
        HEADER + b"Content-Transfer-Encoding: base64\nno field\n\n" + CODED,
        HEADER.replace(b": ", b" : ") + b"\n" + BODY.encode(),
        (HEADER + b"\n" + BODY.encode()).replace(b"\n", b"\r"),
        HEADER.replace(b"charset", b"\n  charset").replace(b"order", b"\n\torder") + b"\n" + BODY.encode(),
        HEADER.upper().replace(b"ORDER", b"order") + b"\n" + BODY.encode(),
    ],
)
def test_headers_stay_headers(raw: bytes) -> None:
    mail = parse_mail(raw)
    assert (mail.subject, mail.text) == ("order", BODY)
    assert mail.received in (datetime(2002, 8, 22, 15, 0, tzinfo=UTC), datetime(2002, 8, 22, 13, 17, 22, tzinfo=UTC))


def test_a_header_that_no_blank_line_ends_loses_nothing() -> None:
    mail = parse_mail(HEADER + BODY.encode() + b"\nsecond line\n\nthird")
    assert (mail.subject, mail.text) == ("order", f"{BODY}\nsecond line\n\nthird")
    assert "header_not_ended" in mail.warnings
    assert "header_without_colon" in flaws(HEADER.replace(b"MIME", b"no field\nMIME") + b"\nx")


@pytest.mark.parametrize(
    "raw", [b"Just a note: call me\n\nbye", b"\n\nSome words\n\nfollow: here", b"words", b"http://x.y\nlook"]
)
def test_a_text_without_a_header_is_all_body(raw: bytes) -> None:
    assert parse_mail(raw).text == raw.decode().strip()


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"=?UTF-8?B?R3LD?=\n =?UTF-8?B?tsOfZQ==?=", "Größe"),
        (b"=?utf-8?Q?Gr=C3?= =?utf-8?q?=B6=C3=9Fe?=", "Größe"),
        (b"=?utf-8?B?Z3LDtsOfZQ==?= f\xc3\xbcr dich", "größe für dich"),
        ("für dich".encode("cp1252"), "für dich"),
        ("Заказ семян".encode("koi8-r"), "Заказ семян"),
        (b"=?utf-32le?B?=47=3649?= =?utf-8?Q?free_money?=", "=?utf-32le?B?=47=3649?= free money"),
        (b"=?utf-8?B?ZnJlZSBtb25leQ?=", "free money"),
        (b"=?utf-8?B?ZnJlZSBt\n b25leQ==?=", "free money"),
        (b"=?utf-8?Q?free money?=", "free money"),
        (b"=?utf-8?Q?free_money", "free money"),
        (b"=?utf-8*en?Q?free?= =?us-ascii?Q?_money?=", "free money"),
        (b"Re: =?iso-8859-1?Q?=93free=94?=(now)", "Re: “free”(now)"),
        (b"=?gb2312?B?" + base64.b64encode("朱镕基發".encode("gb18030")) + b"?=", "朱镕基發"),
        (b"=?iso-2022-jp?B?" + base64.b64encode("こんにちは".encode("iso-2022-jp")) + b"?=", "こんにちは"),
        (b"=?no-such?Q?free_=FCber?=", "free über"),
        (b"=?utf-8?X?free?= money", "=?utf-8?X?free?= money"),
    ],
)
def test_subjects_as_the_world_writes_them(subject: bytes, expected: str) -> None:
    assert parse_mail(b"Subject: " + subject + b"\n\nx").subject == expected


def test_a_subject_that_cannot_be_decoded_does_not_lose_the_message() -> None:
    mail = parse_mail(b"Subject: =?big5?B?//////8=?= offer\n\nbuy")
    assert "offer" in mail.subject
    assert mail.text == "buy"
    assert "encoded_word_broken" in flaws(b"Subject: =?utf-8?B?a*b?=\n\nx")


PLAIN = b"Content-Type: text/plain\n\n" + BODY.encode() + b"\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b'multipart/mixed; boundary="aaa"', b"--bbb\n" + PLAIN + b"--bbb--\n"),
        (b"multipart/mixed", b"--b\n" + PLAIN + b"--b--\n"),
        (b'multipart/mixed; boundary="<<b-1>>"', b"--<<b-1>>\n" + PLAIN + b"--<<b-1>>--\n"),
        (b"multipart/mixed; boundary===--27--==", b"--==--27--==\n" + PLAIN + b"--==--27--==--\n"),
        (b"multipart/mixed; boundary=B", b"--b\n" + PLAIN + b"--b--\n"),
        (b"multipart/mixed; boundary='b'", b"--b\n" + PLAIN + b"--b--\n"),
        (b'multipart/mixed; boundary="b', b"--b\n" + PLAIN + b"--b--\n"),
        (b'multipart/mixed; boundary="b "', b"--b  \n" + PLAIN + b"--b--\t\n"),
        (b"multipart/mixed boundary=b", b"--b\n" + PLAIN + b"--b--\n"),
        (b"multipart/mixed; boundary*0=a; boundary*1=b", b"--ab\n" + PLAIN + b"--ab--\n"),
        (b"multipart/mixed; boundary*=utf-8'en'a%20b", b"--a b\n" + PLAIN + b"--a b--\n"),
        (b"multipart/mixed; boundary*=idna''x", b"--x\n" + PLAIN),
        (b"multipart/mixed; boundary=b", b"preamble\n--b\n" + PLAIN),
        (b"multipart/mixed; boundary=aaa", b"--bbb\n\n" + BODY.encode() + b"\n--bbb--\n"),
        (b"multipart/mixed; boundary=aaa", b"--bbb\n\n" + BODY.encode() + b"\n"),
        (b"multipart/mixed; boundary=b", PLAIN),
        (b"multipart/mixed; boundary=b", BODY.encode()),
        (
            b"multipart/mixed; boundary=b",
            b"--b\n" + b"Content-Type: multipart/mixed; boundary=c\n\n--d\n" + PLAIN + b"--d--\n--b--",
        ),
        (b"multipart/related; boundary=b", b"--b\n\xef\xbb\xbf" + PLAIN + b"--b--"),
        (b"multipart/mixed; boundary=b", b"--b\nno field\n" + PLAIN + b"--b--"),
        (b"multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64", base64.encodebytes(b"--b\n" + PLAIN + b"--b--")),
        (b"text", BODY.encode()),
        (b"text/; charset=utf-8", BODY.encode()),
        (b"TEXT/PLAIN", BODY.encode()),
    ],
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_parts_are_found_whatever_the_boundary_says(kind: bytes, body: bytes, ends: bytes) -> None:
    raw = b"Subject: order\n" + DATE + b"Content-Type: " + kind + b"\n\n" + body
    mail = parse_mail(raw.replace(b"\n", ends))
    assert (mail.subject, mail.text) == ("order", BODY)


def test_a_boundary_that_is_not_found_is_told() -> None:
    head = b"Content-Type: multipart/mixed; boundary=aaa\n\n"
    assert "boundary_wrong" in flaws(head + b"--bbb\n" + PLAIN)
    assert "boundary_missing" in flaws(head + PLAIN)
    assert flaws(head + b"--aaa\n" + PLAIN) == []


QUOTED = BODY.replace(" ", "=20").encode()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        *(
            (form, CODED)
            for form in (b"base64 ", b"base64;", b"base64 (safe)", b'"base64"', b"BASE64", b"x-base64", b"base64\t", b"base-64")
        ),
        *((form, QUOTED) for form in (b"quoted-printable ", b"Quoted-Printable;", b"quotedprintable", b"quoted-printable (x)")),
        (b"base64", b"VG9tYXRvIHNlZWRsaW5ncw==\nIHNoaXAgb24gTW9uZGF5Lg==\n"),
        (b"base64", CODED[:20] + b"\n  \n" + CODED[20:] + b"\r\n"),
        (b"base64", b" ".join(CODED[place : place + 7] for place in range(0, len(CODED), 7))),
        (b"base64", CODED[:8] + b"!" + CODED[8:]),
        (b"base64", CODED.rstrip(b"=")),
        (b"base64", BODY.encode()),
        (b"uuencode", b"begin 644 a\n" + binascii.b2a_uu(BODY.encode()) + b"`\nend\n"),
        (b"x-uuencode", b"begin 644 a\n" + binascii.b2a_uu(BODY.encode()) + b"`\nend\n"),
        *((form, BODY.encode()) for form in (b"8-bit", b"7bit", b"binary", b"none", b"", b"unknown")),
    ],
)
def test_decorated_encodings(encoding: bytes, body: bytes) -> None:
    field = b"Content-Transfer-Encoding: " + encoding + b"\n"
    assert parse_mail(b"Subject: x\n" + field + b"\n" + body).text == BODY
    inner = b"--b\nContent-Type: text/plain\n" + field + b"\n" + body + b"\n--b--"
    assert parse_mail(b"Content-Type: multipart/mixed; boundary=b\n\n" + inner).text == BODY


def test_text_behind_base64_is_read_and_told() -> None:
    raw = b"Content-Transfer-Encoding: base64\n\n" + CODED + b"\n\n_______________\nA mailing list of ours\n"
    assert BODY in parse_mail(raw).text
    assert "A mailing list of ours" in parse_mail(raw).text
    assert flaws(raw) == ["base64_mixed"]
    assert flaws(b"Content-Transfer-Encoding: base64\n\nQUJDR") == ["base64_cut"]


@pytest.mark.parametrize("encoding", [b"7bit", b"base64", b"quoted-printable", b"base64;", b"8bit"])
@pytest.mark.parametrize("kind", [b"message/rfc822", b"message/global", b"MESSAGE/RFC822"])
def test_a_message_in_a_message_is_read_with_its_subject(kind: bytes, encoding: bytes) -> None:
    inner = b"From a b\n\nSubject: inner\nContent-Type: text/plain; charset=utf-8\n\nGr\xc3\xbc\xc3\x9fe\n"
    coded = base64.encodebytes(inner) if b"base" in encoding else binascii.b2a_qp(inner) if b"quoted" in encoding else inner
    part = b"--b\nContent-Type: " + kind + b"\nContent-Transfer-Encoding: " + encoding + b"\n\n" + coded + b"\n--b--"
    mail = parse_mail(b"Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nsee below\n" + part)
    assert mail.text.split(PART) == ["see below", "inner", "Grüße"]


def test_attachments_are_not_text_but_where_they_hold_all_there_is() -> None:
    head = b'Content-Type: multipart/mixed; boundary="b"\n\n'
    hello = b"--b\nContent-Type: text/plain\n\nhello\n"
    secret = b"--b\nContent-Type: text/plain\nContent-Disposition: attachment\n\nsecret\n"
    assert parse_mail(head + hello + secret + b"--b--").text == "hello"
    blank = b"--b\nContent-Type: text/html\n\n<html><style>p {}</style><img src=x></html>\n"
    for only in (
        secret,
        blank + secret,
        b"--b\n\n \n" + secret,
        b'--b\nContent-Type: application/octet-stream; name="a.txt"\n\nsecret\n',
        b'--b\nContent-Type: application/octet-stream\nContent-Disposition: attachment; filename="a.HTM"\n\n<p>secret</p>\n',
        b"--b\nContent-Type: text/html\nContent-Disposition: attachment\n\n<p>secret</p>\n",
    ):
        assert seen(head + only + b"--b--").split() == ["secret"]
        assert "text_from_attachment" in flaws(head + only + b"--b--")
    assert parse_mail(head + b'--b\nContent-Type: image/png; name="a.png"\n\nx\n--b--').text == ""


STUB = b"--b\nContent-Type: text/plain\n\nYour mail program cannot show HTML.\n"
RICH = b"--b\nContent-Type: text/html\n\n<p>rich words</p>\n"
ALTERNATIVE = b'Content-Type: multipart/alternative; boundary="b"\n\n'


def test_of_alternatives_what_a_reader_sees_is_read() -> None:
    assert parse_mail(ALTERNATIVE + STUB + RICH + b"--b--").text == "<p>rich words</p>"
    assert parse_mail(ALTERNATIVE + RICH + STUB + b"--b--").text == "<p>rich words</p>"
    assert parse_mail(ALTERNATIVE + RICH).text == "<p>rich words</p>"
    related = b"--b\nContent-Type: multipart/related; boundary=c\n\n" + RICH.replace(b"--b", b"--c") + b"--c--\n"
    assert parse_mail(ALTERNATIVE + STUB + related + b"--b--").text == "<p>rich words</p>"
    assert parse_mail(ALTERNATIVE + STUB + RICH.replace(b"rich", b"first") + RICH).text == "<p>rich words</p>"
    assert parse_mail(ALTERNATIVE + STUB + b"--b\nContent-Type: text/calendar\n\nBEGIN\n--b--").text.startswith("Your mail")


@pytest.mark.parametrize(
    "html", ["<img src=x>", "<p>&nbsp;</p>", "<style>p {}</style>", "<p style='display:none'>words</p>", ""]
)
def test_an_html_form_that_shows_nothing_is_none(html: str) -> None:
    blank = b"--b\nContent-Type: text/html\n\n" + html.encode() + b"\n"
    assert parse_mail(ALTERNATIVE + STUB + blank + b"--b--").text == "Your mail program cannot show HTML."


@pytest.mark.parametrize("begin", ["<!--", "<style>", "<title>", "<p><script>", "<div hidden>", "<p><template>"])
def test_no_part_hides_another(begin: str) -> None:
    """Plain text is what it says, and each HTML part is a page of its own."""
    plain = b"--b\nContent-Type: text/plain\n\nhello " + begin.encode() + b"\n"
    raw = b"Subject: offer " + begin.encode() + b"\nContent-Type: multipart/mixed; boundary=b\n\n" + plain + RICH + b"--b--"
    assert {"offer", "hello", "rich", "words"} <= set(seen(raw).split())
    html = b"--b\nContent-Type: text/html\n\n<p>hello " + begin.encode() + b"\n"
    assert {"hello", "rich", "words"} <= set(seen(b"Content-Type: multipart/mixed; boundary=b\n\n" + html + RICH).split())


def test_html_without_a_tag_is_html() -> None:
    assert seen(b"Content-Type: text/html\n\nF&#8203;ree m&shy;oney &amp; more") == "Free money & more"


BOUNDARIES = [b"=idna''x", b"=punycode''%ff", b"=undefined''x", b"=utf\0''x", b"9" * 5000 + b"=x"]
"""Boundaries whose charset nobody can decode (RFC 2231)."""


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
@example(BOUNDARIES[0])
@example(BOUNDARIES[1])
@example(BOUNDARIES[2])
@example(BOUNDARIES[3])
@example(BOUNDARIES[4])
@example(b"utf-16\n\n\0")
@example(b"iso-2022-jp\n\n\x1b$B\xff")
def test_no_bytes_make_the_parser_raise(raw: bytes) -> None:
    coded = (b"Content-Transfer-Encoding: base64\n\n", b"Content-Transfer-Encoding: uuencode\n\n", b"\xff\xfe")
    typed = (b"Content-Type: text/html; charset=", b"Content-Type: multipart/mixed; boundary*")
    for start in (b"", b"Subject: ", b"Subject: =?", b"From x ", *typed, *coded):
        mail = parse_mail(start + raw)
        assert isinstance(ALL(document(mail.subject, mail.text)), str)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=60), st.data())
def test_what_was_written_is_read_again(text: str, data: st.DataObject) -> None:
    """Any text, in any encoding and nesting that the standard allows."""
    text = " ".join(text.split()) or "x"
    coded = text.encode()
    encoding, body = data.draw(
        st.sampled_from(
            [(b"8bit", coded), (b"base64", base64.encodebytes(coded)), (b"quoted-printable", binascii.b2a_qp(coded))]
        )
    )
    part = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: " + encoding + b"\n\n" + body + b"\n"
    for depth in range(data.draw(st.integers(0, 3))):
        edge = b"--=_%d" % depth
        part = b"Content-Type: multipart/mixed; boundary==_%d\n\n" % depth + edge + b"\n" + part + edge + b"--\n"
    subject = b"=?utf-8?B?" + base64.b64encode(coded) + b"?="
    mail = parse_mail(b"Subject: " + subject + b"\n" + part)
    assert mail.text == document(None, _without_tags(text))
    assert mail.subject == " ".join(_without_tags(text).split())


def _without_tags(text: str) -> str:
    from service.kinds.text_classification.html import LOOKS_LIKE_HTML

    return LOOKS_LIKE_HTML.sub(" ", text).strip()


def test_parts_without_end_are_read_as_far_as_the_bounds() -> None:
    inner = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(800))
    mail = parse_mail(b"Subject: hi\n" + inner + b"\nwords\n" + b"x\n" * 200_000)
    assert (mail.subject, "mime_too_deep" in mail.warnings) == ("hi", True)
    assert "words" in mail.text
    many = parse_mail(b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nword\n" * (3 * PARTS))
    assert "mime_too_many_parts" in many.warnings
    assert many.text.count("word") >= PARTS - 1


@pytest.mark.parametrize(
    "hostile",
    [b"Subject: " + b" =?a?q?x" * 250_000, b'Content-Type: text/plain; x="' + b";" * 2_000_000, b"Date: " + b"(" * 2_000_000],
)
def test_of_a_header_without_end_only_its_beginning_is_decoded(hostile: bytes) -> None:
    assert len(parse_mail(b"Subject: " + b"x" * 3000 + b"\n\nbody").subject) == HEADER_BYTES
    for raw in (
        hostile + b"\n\nbody\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + hostile + b"\nContent-Type: text/plain\n\nbody\n--b--\n",
    ):
        mail = parse_mail(raw)
        assert mail.text == "body"
        assert "header_cut" in mail.warnings
        assert len(mail.subject) <= HEADER_BYTES


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: message/rfc822\n\n" * 3000,
        b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(3000)),
    ],
)
def test_parts_within_parts_without_end_are_read_as_far_as_the_subject(raw: bytes) -> None:
    mail = parse_mail(b"Subject: deep\nDate: Thu, 22 Aug 2002 15:00:00 +0000\n" + raw)
    assert mail.subject == "deep"
    assert mail.received is not None
