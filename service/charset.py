"""Bytes to text when the declared charset may be wrong.

A label means what the WHATWG Encoding Standard says it means (``gb2312`` is gb18030, ``iso-8859-1`` is windows-1252),
since that is what mail programs and browsers decode with. Where the label fails, the order is: UTF-8 if the bytes are
valid, the charset that an HTML part names in ``<meta>``, and Firefox's detector (chardetng).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache

import webencodings
from chardetng_py import detect

_LARGER = {"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
           "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "cp950"}  # fmt: skip
"""Python's codec, and the one with more characters that the standard decodes in its place."""
_MAIL = {"hz-gb-2312": "hz", "hz": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr", "utf-7": "utf-7",
         "unicode-1-1-utf-7": "utf-7", "utf8mb4": "utf-8", "big5-hkscs": "big5hkscs", "unicode": "utf-16", "utf-16": "utf-16",
         "ucs-2": "utf-16", "iso-10646-ucs-2": "utf-16"}  # fmt: skip
"""Labels of mail that the standard refuses to decode, or does not know. UTF-16 tells its byte order by its bytes."""
_NAMES = {"big5": "big5", "shift_jis": "shift_jis", "euc-kr": "euc_kr", "iso-8859-8-i": "iso8859-8",
          "x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman", "windows-874": "cp874"}  # fmt: skip
"""What Python calls an encoding of the standard, where it knows it by another name."""
_OTHERS = re.compile(r"(?:cp|ibm|windows|win|mac|iso|latin|koi8|big5|gb|euc|shift|sjis|ms|tis|utf|ks|johab|viscii)[-_\w.:]*")
"""What else Python is asked for. It knows codecs (punycode, idna) whose decoders take the square of the length."""
_ALSO = {"big5": ("big5hkscs",), "cp950": ("big5hkscs",), "iso8859-2": ("cp1250",), "iso8859-5": ("cp1251",),
         "iso8859-6": ("cp1256",), "iso8859-7": ("cp1253",), "iso8859-8": ("cp1255",), "iso8859-13": ("cp1257",),
         "iso8859-4": ("cp1257",)}  # fmt: skip
"""What is tried behind a charset that does not fit: its larger twin, or what Windows programs send under its name."""

STATEFUL = ("iso2022_jp", "iso2022_kr", "hz", "utf-7")
_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
_MULTIBYTE = ("gb18030", "cp932", "cp949", "cp950", "big5hkscs", "euc_jp")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_ESCAPES = ((re.compile(rb"\x1b\$\)C"), "iso2022_kr"), (re.compile(rb"\x1b(?:\$[@B]|\(J|\$\()"), "iso2022_jp"))
_META = re.compile(rb"<meta[^<>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
DETECTED_BYTES = 4000
"""How much of a text the detector is shown."""
TELLING_BYTES = 3
"""Fewer bytes beyond ASCII than this are taken for windows-1252 letters."""
META_BYTES = 4096
"""How far into a part its ``<meta>`` is looked for; the standard says 1024, mail programs write more before it."""
_C1 = {code: bytes([code]).decode("cp1252", "ignore") or None for code in range(0x80, 0xA0)}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_HAS_C1 = re.compile("[\u0080-\u0084\u0086-\u009f]")
"""The C1 controls without NEL: no text holds them, so they are the sign of a wrong guess."""


@lru_cache(maxsize=1024)
def codec_of(label: str) -> str | None:
    """Python's codec for a charset label as mail writes it; None for one that is not known or not trusted."""
    name = label.strip("\"' \t\r\n").partition("*")[0].lower()  # RFC 2231, 5: a language may follow
    name = re.split(r"[\s;,\"'=()]", name, maxsplit=1)[0]
    dashed = name.replace("_", "-")
    if known := _MAIL.get(dashed):
        return known
    for form in (name, dashed, dashed.removeprefix("x-"), re.sub(r"^(cp|iso|utf)-?", r"\1-", dashed), f"iso-{dashed}"):
        encoding = webencodings.lookup(form)
        if encoding is not None and encoding.name not in ("replacement", "x-user-defined"):
            return _python_codec(_NAMES.get(encoding.name, encoding.name))
    if not _OTHERS.fullmatch(name):
        return None
    forms = (dashed, dashed.replace("-", ""), re.sub(r"^(?:x-|ms-?|win-?)", "cp", dashed), re.sub(r"[-:]\d+$", "", dashed))
    return next(filter(None, map(_python_codec, forms)), None)


def _python_codec(name: str) -> str | None:
    try:
        found = codecs.lookup(name).name
    except LookupError:
        return None
    return _LARGER.get(found, found)


def decode(data: bytes, label: str | None, markup: bool = False) -> tuple[str, str | None]:
    """The text of ``data``, declared to be ``label`` (None: undeclared), and what was wrong with that, if anything.

    ``markup``: a ``<meta>`` in it counts. The second value is ``charset_undeclared``, ``charset_unknown``,
    ``charset_wrong``, or ``charset_broken`` where characters were lost. Never raises.
    """
    codec = codec_of(label) if label else None
    lie = "charset_undeclared" if not label else "charset_wrong" if codec else "charset_unknown"
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) if name == "utf-8" else 0 :].decode(name, "replace"), None
    if data.isascii():
        return _seven_bits(data, codec, lie)
    if codec in STATEFUL:
        return _stateful(data, codec)
    return _eight_bits(data, codec, markup, lie)


def _seven_bits(data: bytes, codec: str | None, lie: str) -> tuple[str, str | None]:
    """ASCII, unless escape sequences or NULs say that it is something else."""
    if codec in STATEFUL and codec is not None:
        return _stateful(data, codec)
    for escape, name in _ESCAPES:
        if b"\x1b" in data and escape.search(data):
            return _stateful(data, name)[0], lie
    if wide := _wide(data, codec):
        return data.decode(wide, "replace"), None if codec in _WIDE else lie
    return data.decode("ascii"), lie if codec in _WIDE else None


def _wide(data: bytes, codec: str | None) -> str | None:
    """UTF-16 or UTF-32 and its byte order; None where the bytes are those of a narrower charset, whatever is declared."""
    nuls = data.count(0)
    if nuls < len(data) / 4 and not (codec in _WIDE and (not data.isascii() or _CONTROLS.search(data))):
        return None
    if nuls == 0 and not data.isascii() and _utf8(data, codec) is not None:
        return None
    if nuls > 0.6 * len(data) or (codec or "").startswith("utf-32"):
        return "utf-32-be" if data[:1] == b"\0" else "utf-32-le"
    if codec in ("utf-16-le", "utf-16-be") and nuls == 0:
        return codec
    # The high bytes of a text are of few kinds, the low ones of many.
    return "utf-16-be" if len(set(data[::2])) < len(set(data[1::2])) else "utf-16-le"


def _stateful(data: bytes, codec: str) -> tuple[str, str | None]:
    """A 7-bit charset of escape sequences. Japanese mail uses characters (NEC row 13) that only JIS X 0213 has a place for."""
    tries = [(data, codec)]
    if codec == "iso2022_jp":
        tries += [(data, "iso2022_jp_ext"), (re.sub(rb"\x1b\$[@B]", b"\x1b$(Q", data), "iso2022_jp_2004")]
    for form, name in tries:
        try:
            return form.decode(name), None
        except UnicodeDecodeError:
            continue
    return min((form.decode(name, "replace") for form, name in tries), key=lambda text: text.count("\ufffd")), "charset_broken"


def _eight_bits(data: bytes, codec: str | None, markup: bool, lie: str) -> tuple[str, str | None]:
    wide = _wide(data, codec)
    utf8 = None if wide else _utf8(data, codec)
    if utf8 is not None:
        return utf8.translate(_C1) if _HAS_C1.search(utf8) else utf8, None if codec == "utf-8" else lie
    for name in _declared(data, codec, wide, markup):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if not _HAS_C1.search(text):
            return text, None if name in (codec, wide) else lie
    # A few broken bytes in a true big5 message must not turn all of it into Latin letters.
    for multibyte in (codec if codec in _MULTIBYTE else None, "utf-8"):
        if multibyte and _broken_share(text := data.decode(multibyte, "replace")) <= 0.5:
            return text, "charset_broken"
    names = [name for name in dict.fromkeys((codec, _detected(data), "cp1252")) if name is not None and name not in _WIDE]
    text = min(
        (data.decode(name, "replace") for name in names), key=lambda text: text.count("\ufffd") + len(_HAS_C1.findall(text))
    )
    return text, "charset_broken" if "\ufffd" in text else lie


def _detected(data: bytes) -> str:
    """What the detector takes the bytes for; one or two letters tell it too little of any but the commonest charset."""
    begin = next(match.start() for match in _BEYOND_ASCII.finditer(data))
    shown = data[begin : begin + DETECTED_BYTES]
    found = codec_of(detect(shown)) or "cp1252"
    few = len(_BEYOND_ASCII.findall(shown)) < TELLING_BYTES
    return "cp1252" if few and found not in _MULTIBYTE else found


def _utf8(data: bytes, codec: str | None) -> str | None:
    """``data`` as UTF-8 if it is valid. Other text hardly ever is, but for a few letters of a declared multibyte charset."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if codec not in _MULTIBYTE or sum(letter > "\u07ff" for letter in text) > 1 else None


def _declared(data: bytes, codec: str | None, wide: str | None, markup: bool) -> Iterator[str]:
    """What the bytes, the label and the markup say they are, in this order."""
    if wide:
        yield wide
    if codec and codec not in _WIDE:
        yield codec
        yield from _ALSO.get(codec, ())
    if markup and (meta := _META.search(data, 0, META_BYTES)) and (named := codec_of(meta[1].decode("ascii", "replace"))):
        yield named


def _broken_share(text: str) -> float:
    """How many of the characters beyond ASCII are replacement characters."""
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    return text.count("\ufffd") / max(1, beyond)
