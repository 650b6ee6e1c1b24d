"""service/mail.py: real mail's lies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.mail import HEADER_CHARACTERS, parse_mail
from service.text import STEPS, Normaliser, document

ALL = Normaliser(tuple(STEPS), ("taint.org",), 4000)


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


@pytest.mark.parametrize(
    ("charset", "body", "expected", "warning"),
    [
        (b"iso-8859-1", "Grüße".encode("latin-1"), "Grüße", None),
        (b"us-ascii", "Grüße".encode(), "Grüße", "charset_wrong"),
        (b"no-such-charset", "Grüße".encode("cp1252"), "Grüße", "charset_unknown"),
        (b"big5", b"\xa4\xa4\xa4\xe5\xff", "中文\ufffd", "charset_wrong"),
    ],
)
def test_charsets_that_lie(charset: bytes, body: bytes, expected: str, warning: str | None) -> None:
    mail = parse_mail(b"Content-Type: text/plain; charset=" + charset + b"\nDate: Thu, 22 Aug 2002 15:00:00 +0000\n\n" + body)
    assert mail.text == expected
    assert [name for name in mail.warnings if name.startswith("charset")] == ([warning] if warning else [])


def test_a_subject_that_cannot_be_decoded_does_not_lose_the_message() -> None:
    mail = parse_mail(b"Subject: =?big5?B?//////8=?= offer\n\nbuy")
    assert "offer" in mail.subject
    assert mail.text == "buy"


def test_alternatives_give_the_plain_part_and_html_only_mail_its_html() -> None:
    head = b'Content-Type: multipart/alternative; boundary="b"\n\n'
    plain = b"--b\nContent-Type: text/plain\n\nplain words\n"
    html = b"--b\nContent-Type: text/html\n\n<p>rich words</p>\n--b--\n"
    assert parse_mail(head + plain + html).text == "plain words"
    assert parse_mail(head + html).text == "<p>rich words</p>"


def test_attachments_are_not_text() -> None:
    raw = (
        b'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\nhello\n'
        b"--b\nContent-Type: text/plain\nContent-Disposition: attachment\n\nsecret\n--b--\n"
    )
    assert parse_mail(raw).text == "hello"


BOUNDARIES = [b"=idna''x", b"=punycode''%ff", b"=undefined''x", b"=utf\0''x", b"9" * 5000 + b"=x"]
"""Boundaries that Python's parser cannot decode (RFC 2231)."""


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
@example(BOUNDARIES[0])
@example(BOUNDARIES[1])
@example(BOUNDARIES[2])
@example(BOUNDARIES[3])
@example(BOUNDARIES[4])
def test_no_bytes_make_the_parser_raise(raw: bytes) -> None:
    starts = (b"", b"Subject: ", b"Content-Type: text/html; charset=", b"From x ", b"Content-Type: multipart/mixed; boundary*")
    for start in starts:
        mail = parse_mail(start + raw)
        assert isinstance(ALL(document(mail.subject, mail.text)), str)


def test_parts_within_parts_without_end_are_read_as_text() -> None:
    """Python's parser would look at each of the 200,000 lines 800 times."""
    inner = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(800))
    mail = parse_mail(b"Subject: hi\n" + inner + b"\nwords\n" + b"x\n" * 200_000)
    assert mail.subject == "hi"
    assert "words" in mail.text
    assert "mime_too_many_multiparts" in mail.warnings


@pytest.mark.parametrize("boundary", BOUNDARIES[:4])
def test_a_boundary_in_a_broken_charset_costs_the_parts_and_not_the_subject(boundary: bytes) -> None:
    mail = parse_mail(b"Subject: hi\nContent-Type: multipart/mixed; boundary*" + boundary + b"\n\n--x\n\nbody\n")
    assert (mail.subject, mail.text) == ("hi", "")
    assert mail.warnings[0].startswith("mime_")
    assert mail.warnings[0] != "mime_too_deep"


@pytest.mark.parametrize(
    "hostile",
    [b"Subject: " + b" =?a?q?x" * 250_000, b'Content-Type: text/plain; x="' + b";" * 2_000_000, b"Date: " + b"(" * 2_000_000],
)
def test_of_a_header_without_end_only_its_beginning_is_decoded(hostile: bytes) -> None:
    assert len(parse_mail(b"Subject: " + b"x" * 3000 + b"\n\nbody").subject) == HEADER_CHARACTERS
    for raw in (
        hostile + b"\n\nbody\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + hostile + b"\n\nbody\n--b--\n",
    ):
        mail = parse_mail(raw)
        assert mail.text == "body"
        assert "header_cut" in mail.warnings
        assert len(mail.subject) <= HEADER_CHARACTERS


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


def test_years_that_no_mail_is_from_are_no_time() -> None:
    assert parse_mail(b"Date: Fri, 31 Dec 9999 23:59:59 +0000\n\nx").warnings == ("time_missing",)
    assert parse_mail(b"From a  Thu Aug 22 13:17:22 0102\n\nx").received is None


def test_a_charset_that_is_slow_to_decode_is_not_tried() -> None:
    assert parse_mail(b"Content-Type: text/plain; charset=punycode\n\nabc-\xff").warnings[0] == "charset_unknown"
