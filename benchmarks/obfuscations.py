"""What may be done to a message without changing what its reader sees: each takes a message, and makes one that looks alike."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from service.mail import parse_mail
from service.text import PART, Normaliser

_VISIBLE = Normaliser(("html", "unicode"), (), 200_000)
_HOMOGLYPHS = str.maketrans("aeopcxyiAEOPCXTHBKM", "аеорсхуіАЕОРСХТНВКМ")
_GREEK = str.maketrans("oAEIOTXBHKMN", "οΑΕΙΟΤΧΒΗΚΜΝ")
HAM = "the meeting about the kernel patch and the agenda of the next release is moved, see the thread on the list for notes"


@dataclass(frozen=True)
class Letter:
    """A message taken apart: the raw bytes, its subject, and its text as a reader sees it."""

    raw: bytes
    subject: str
    text: str

    @classmethod
    def of(cls, raw: bytes) -> Letter:
        mail = parse_mail(raw)
        return cls(raw, mail.subject, "\n".join(_VISIBLE(part) for part in mail.text.split(PART)))

    def head(self, more: str) -> bytes:
        """A header with the subject and the field lines ``more``."""
        subject = b"=?utf-8?B?" + base64.b64encode(self.subject.encode("utf-8", "replace")) + b"?="
        return b"Subject: " + subject + b"\nMIME-Version: 1.0\n" + more.encode() + b"\n"

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

    def markup(self, letter: Callable[[str], str] = html.escape) -> str:
        """The text as HTML, each of its words by ``letter``."""
        lines = (" ".join(map(letter, line.split())) for line in self.text.split("\n"))
        return "<html><body>" + "<br>\n".join(lines)


def part(kind: str, body: str, boundary: str = "b") -> bytes:
    return f"--{boundary}\nContent-Type: {kind}; charset=utf-8\n\n{body}\n".encode("utf-8", "replace")


def between(mark: str) -> Callable[[str], str]:
    """A word with ``mark`` between its letters."""
    return lambda word: mark.join(map(html.escape, word))


def spread(mark: str) -> Callable[[Letter], bytes]:
    """The message with ``mark`` between the letters of its words, as plain text."""
    return lambda letter: letter.plain(re.sub(r"(?<=\w)(?=\w)", mark, letter.text))


def broken_multipart(parameter: str, boundary: str) -> Callable[[Letter], bytes]:
    def make(letter: Letter) -> bytes:
        body = part("text/plain", letter.text, boundary) + f"--{boundary}--\n".encode()
        return letter.head(f"Content-Type: multipart/mixed{parameter}\n") + body

    return make


def alternative(stub: str) -> Callable[[Letter], bytes]:
    """The message as HTML behind a plain form that says ``stub``."""

    def make(letter: Letter) -> bytes:
        parts = part("text/plain", stub) + part("text/html", letter.markup()) + b"--b--\n"
        return letter.head('Content-Type: multipart/alternative; boundary="b"\n') + parts

    return make


def hidden(open_tag: str, close_tag: str) -> Callable[[Letter], bytes]:
    """The message as HTML with much harmless text that is hidden."""
    ham = f"{open_tag}{(HAM + ' ') * 20}{close_tag}"
    return lambda letter: letter.rich(letter.markup() + ham) if close_tag else letter.rich(ham + letter.markup())


def wrapped(letter: Letter) -> bytes:
    """The message within a message, in base64."""
    inner = base64.encodebytes(letter.plain())
    body = b"--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + inner + b"--b--\n"
    return letter.head("Content-Type: multipart/mixed; boundary=b\n") + body


def in_pieces(data: bytes) -> bytes:
    """Base64 in pieces of 30 bytes, each padded."""
    return b"\n".join(base64.b64encode(data[start : start + 28]) for start in range(0, len(data), 28))


def uuencoded(data: bytes) -> bytes:
    lines = (binascii.b2a_uu(data[start : start + 45]) for start in range(0, len(data), 45))
    return b"begin 644 text\n" + b"".join(lines) + b"`\nend\n"


def header_line(line: bytes, before: bytes = b"Subject:") -> Callable[[Letter], bytes]:
    """The message with a line among its header fields that is none."""
    return lambda letter: letter.plain().replace(before, line + b"\n" + before, 1)


OBFUSCATIONS: dict[str, Callable[[Letter], bytes]] = {
    "byte order mark": lambda letter: b"\xef\xbb\xbf" + letter.raw,
    "blank lines first": lambda letter: b"\n\n" + letter.raw,
    "carriage returns": lambda letter: letter.raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    "whole message in UTF-16": lambda letter: letter.plain().decode("utf-8", "replace").encode("utf-16"),
    "header line without a colon": header_line(b"Some Gateway Internet Headers Version 2.0"),
    "header line >From": header_line(b">From a@b.c Thu Aug 22 13:17:22 2002"),
    "header line not ASCII": header_line(b"\xff\xfe\xfd", b"MIME-Version:"),
    "boundary missing": broken_multipart("", "b"),
    "boundary different": broken_multipart('; boundary="aaa"', "bbb"),
    "boundary with equals signs": broken_multipart("; boundary===--27--==", "==--27--=="),
    "base64": lambda letter: letter.plain(encode=base64.encodebytes, transfer="base64"),
    "base64, decorated": lambda letter: letter.plain(encode=base64.encodebytes, transfer="base64; (safe)"),
    "base64 in padded pieces": lambda letter: letter.plain(encode=in_pieces, transfer="base64"),
    "quoted-printable, decorated": lambda letter: letter.plain(encode=binascii.b2a_qp, transfer="Quoted-Printable;"),
    "uuencode": lambda letter: letter.plain(encode=uuencoded, transfer="x-uuencode"),
    "message in a message, base64": wrapped,
    "text as an attachment": lambda letter: (
        letter.head("Content-Type: text/plain; charset=utf-8\nContent-Disposition: attachment\n")
        + letter.text.encode("utf-8", "replace")
    ),
    "stub as the plain form": alternative("Your mail program cannot show HTML."),
    "ham as the plain form": alternative((HAM + "\n") * 20),
    "charset us-ascii": lambda letter: letter.plain().replace(b"charset=utf-8", b"charset=us-ascii", 1),
    "charset unknown": lambda letter: letter.plain().replace(b"charset=utf-8", b"charset=x-unknown", 1),
    "charset utf-16, of ASCII": lambda letter: letter.plain().replace(b"charset=utf-8", b"charset=utf-16", 1),
    "charset utf-16": lambda letter: letter.plain(charset="utf-16"),
    "charset utf-7": lambda letter: letter.plain(charset="utf-7"),
    "HTML": lambda letter: letter.rich(letter.markup()),
    "span around each letter": lambda letter: letter.rich(
        letter.markup(lambda word: "".join(f"<span>{html.escape(sign)}</span>" for sign in word))
    ),
    "comment between letters": lambda letter: letter.rich(letter.markup(between("<!-- x -->"))),
    "<wbr> between letters": lambda letter: letter.rich(letter.markup(between("<wbr>"))),
    "hidden letters between letters": lambda letter: letter.rich(letter.markup(between('<i style="display:none">q</i>'))),
    "entities for letters": lambda letter: letter.rich(letter.markup(lambda word: "".join(f"&#{ord(sign)};" for sign in word))),
    "zero-width entities": lambda letter: letter.rich(letter.markup(between("&#8203;"))),
    "soft hyphen entities": lambda letter: letter.rich(letter.markup(between("&shy;"))),
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
    "fullwidth letters": lambda letter: letter.plain(re.sub("[!-~]", lambda sign: chr(ord(sign[0]) + 0xFEE0), letter.text)),
    "bold letters": lambda letter: letter.plain(re.sub("[a-z]", lambda sign: chr(ord(sign[0]) - 97 + 0x1D41A), letter.text)),
    "Cyrillic lookalikes": lambda letter: letter.plain(letter.text.translate(_HOMOGLYPHS)),
    "Greek lookalikes": lambda letter: letter.plain(letter.text.translate(_GREEK)),
    "line separators": lambda letter: letter.plain(letter.text.replace("\n", "\u2028")),
}
"""Each by its name in the table."""
