"""Obfuscations of a message that leave what its reader sees unchanged."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from service.kinds.text_classification.mail import parse_mail
from service.kinds.text_classification.text import PART, Normaliser

_VISIBLE = Normaliser(("html", "unicode"), (), 200_000)
_HOMOGLYPHS = str.maketrans("aeopcxyiAEOPCXTHBKM", "аеорсхуіАЕОРСХТНВКМ")
_GREEK = str.maketrans("oAEIOTXBHKMN", "οΑΕΙΟΤΧΒΗΚΜΝ")
HAM = "the meeting about the kernel patch and the agenda of the next release is moved, see the thread on the list for notes"


@dataclass(frozen=True)
class ParsedMessage:
    """A parsed message: the raw bytes, its subject, and its text as a reader sees it."""

    raw: bytes
    subject: str
    text: str

    @classmethod
    def parse(cls, raw: bytes) -> ParsedMessage:
        mail = parse_mail(raw)
        return cls(raw, mail.subject, "\n".join(_VISIBLE(part) for part in mail.text.split(PART)))

    def head(self, fields: str) -> bytes:
        """The header with the subject and the lines ``fields``."""
        subject = b"=?utf-8?B?" + base64.b64encode(self.subject.encode("utf-8", "replace")) + b"?="
        return b"Subject: " + subject + b"\nMIME-Version: 1.0\n" + fields.encode() + b"\n"

    def plain(
        self,
        text: str | None = None,
        charset: str = "utf-8",
        encode: Callable[[bytes], bytes] | None = None,
        transfer: str = "8bit",
    ) -> bytes:
        """The message as plain text."""
        data = (self.text if text is None else text).encode(charset, "replace")
        kind = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {transfer}\n"
        return self.head(kind) + (encode(data) if encode else data)

    def rich(self, page: str) -> bytes:
        """The message as HTML."""
        return self.head("Content-Type: text/html; charset=utf-8\n") + page.encode("utf-8", "replace")

    def markup(self, encode_word: Callable[[str], str] = html.escape) -> str:
        """The text as HTML, each word encoded by ``encode_word``."""
        lines = (" ".join(map(encode_word, line.split())) for line in self.text.split("\n"))
        return "<html><body>" + "<br>\n".join(lines)


def part(kind: str, body: str, boundary: str = "b") -> bytes:
    return f"--{boundary}\nContent-Type: {kind}; charset=utf-8\n\n{body}\n".encode("utf-8", "replace")


def between(mark: str) -> Callable[[str], str]:
    """An encoder that puts ``mark`` between the letters of a word."""
    return lambda word: mark.join(map(html.escape, word))


def spread(mark: str) -> Callable[[ParsedMessage], bytes]:
    """The message as plain text with ``mark`` between the letters of its words."""
    return lambda message: message.plain(re.sub(r"(?<=\w)(?=\w)", mark, message.text))


def broken_multipart(parameter: str, boundary: str) -> Callable[[ParsedMessage], bytes]:
    def make(message: ParsedMessage) -> bytes:
        body = part("text/plain", message.text, boundary) + f"--{boundary}--\n".encode()
        return message.head(f"Content-Type: multipart/mixed{parameter}\n") + body

    return make


def alternative(stub: str) -> Callable[[ParsedMessage], bytes]:
    """The message as HTML, with ``stub`` as its plain-text alternative."""

    def make(message: ParsedMessage) -> bytes:
        parts = part("text/plain", stub) + part("text/html", message.markup()) + b"--b--\n"
        return message.head('Content-Type: multipart/alternative; boundary="b"\n') + parts

    return make


def hidden(open_tag: str, close_tag: str) -> Callable[[ParsedMessage], bytes]:
    """The message as HTML with much hidden harmless text."""
    ham = f"{open_tag}{(HAM + ' ') * 20}{close_tag}"
    return lambda message: message.rich(message.markup() + ham) if close_tag else message.rich(ham + message.markup())


def wrapped(message: ParsedMessage) -> bytes:
    """The message attached to a message, in base64."""
    inner = base64.encodebytes(message.plain())
    body = b"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + inner + b"--b--\n"
    return message.head("Content-Type: multipart/mixed; boundary=b\n") + body


def in_pieces(data: bytes) -> bytes:
    """Base64 in chunks of 28 bytes, each padded."""
    return b"\n".join(base64.b64encode(data[start : start + 28]) for start in range(0, len(data), 28))


def uuencoded(data: bytes) -> bytes:
    lines = (binascii.b2a_uu(data[start : start + 45]) for start in range(0, len(data), 45))
    return b"begin 644 text\n" + b"".join(lines) + b"`\nend\n"


def header_line(line: bytes, before: bytes = b"Subject:") -> Callable[[ParsedMessage], bytes]:
    """The message with an invalid line in its header."""
    return lambda message: message.plain().replace(before, line + b"\n" + before, 1)


OBFUSCATIONS: dict[str, Callable[[ParsedMessage], bytes]] = {
    "byte order mark": lambda message: b"\xef\xbb\xbf" + message.raw,
    "blank lines first": lambda message: b"\n\n" + message.raw,
    "carriage returns": lambda message: message.raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "whole message in UTF-16": lambda message: message.plain().decode("utf-8", "replace").encode("utf-16"),
    "header line without a colon": header_line(b"Some Gateway Internet Headers Version 2.0"),
    "header line >From": header_line(b">From a@b.c Thu Aug 22 13:17:22 2002"),
    "header line not ASCII": header_line(b"\xff\xfe\xfd", b"MIME-Version:"),
    "boundary missing": broken_multipart("", "b"),
    "boundary different": broken_multipart('; boundary="aaa"', "bbb"),
    "boundary with equals signs": broken_multipart("; boundary===--27--==", "==--27--=="),
    "base64": lambda message: message.plain(encode=base64.encodebytes, transfer="base64"),
    "base64, decorated": lambda message: message.plain(encode=base64.encodebytes, transfer="base64; (safe)"),
    "base64 in padded pieces": lambda message: message.plain(encode=in_pieces, transfer="base64"),
    "quoted-printable, decorated": lambda message: message.plain(encode=binascii.b2a_qp, transfer="Quoted-Printable;"),
    "uuencode": lambda message: message.plain(encode=uuencoded, transfer="x-uuencode"),
    "message in a message, base64": wrapped,
    "text as an attachment": lambda message: (
        message.head("Content-Type: text/plain; charset=utf-8\nContent-Disposition: attachment\n")
        + message.text.encode("utf-8", "replace")
    ),
    "stub as the plain form": alternative("Your mail program cannot show HTML."),
    "ham as the plain form": alternative((HAM + "\n") * 20),
    "charset us-ascii": lambda message: message.plain().replace(b"charset=utf-8", b"charset=us-ascii", 1),
    "charset unknown": lambda message: message.plain().replace(b"charset=utf-8", b"charset=x-unknown", 1),
    "charset utf-16, of ASCII": lambda message: message.plain().replace(b"charset=utf-8", b"charset=utf-16", 1),
    "charset utf-16": lambda message: message.plain(charset="utf-16"),
    "charset utf-7": lambda message: message.plain(charset="utf-7"),
    "HTML": lambda message: message.rich(message.markup()),
    "span around each letter": lambda message: message.rich(
        message.markup(lambda word: "".join(f"<span>{html.escape(sign)}</span>" for sign in word))
    ),
    "comment between letters": lambda message: message.rich(message.markup(between("<!-- x -->"))),
    "<wbr> between letters": lambda message: message.rich(message.markup(between("<wbr>"))),
    "hidden letters between letters": lambda message: message.rich(message.markup(between('<i style="display:none">q</i>'))),
    "entities for letters": lambda message: message.rich(
        message.markup(lambda word: "".join(f"&#{ord(sign)};" for sign in word))
    ),
    "zero-width entities": lambda message: message.rich(message.markup(between("&#8203;"))),
    "soft hyphen entities": lambda message: message.rich(message.markup(between("&shy;"))),
    "hidden ham, display:none": hidden('<div style="display:none">', "</div>"),
    "hidden ham, hidden": hidden("<p hidden>", "</p>"),
    "hidden ham, size 0": hidden('<span style="font-size:0px">', "</span>"),
    "hidden ham, white": hidden("<font color=white>", "</font>"),
    "hidden ham, style sheet": hidden("<style>.q {visibility: hidden}</style><div class=q>", "</div>"),
    "hidden ham, comment": hidden("<!--", "-->"),
    "hidden ham, title": hidden("<title>", "</title>"),
    "zero-width space": spread("\u200b"),
    "word joiner": spread("\u2060"),
    "variation selector": spread("\ufe0f"),
    "combining grapheme joiner": spread("\u034f"),
    "tag characters": spread("\U000e0041"),
    "bidi marks": spread("\u200e"),
    "bidi isolates": spread("\u2066\u2069"),
    "fullwidth letters": lambda message: message.plain(re.sub("[!-~]", lambda sign: chr(ord(sign[0]) + 0xFEE0), message.text)),
    "bold letters": lambda message: message.plain(re.sub("[a-z]", lambda sign: chr(ord(sign[0]) - 97 + 0x1D41A), message.text)),
    "Cyrillic lookalikes": lambda message: message.plain(message.text.translate(_HOMOGLYPHS)),
    "Greek lookalikes": lambda message: message.plain(message.text.translate(_GREEK)),
    "line separators": lambda message: message.plain(message.text.replace("\n", "\u2028")),
}
"""By name in the table."""
