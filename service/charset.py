"""Decodes bytes whose declared charset may be wrong.

Labels are interpreted as in the WHATWG Encoding Standard (``gb2312`` is gb18030, ``iso-8859-1`` is windows-1252), as mail
programs and browsers do. If the label fails, the order is: UTF-8 if the bytes are valid, the charset in the ``<meta>`` of an
HTML part, and Firefox's detector (chardetng).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache

import webencodings
from chardetng_py import detect

_SUPERSETS = {"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
           "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "cp950"}  # fmt: skip
"""Python's codec, and the superset that the standard uses in its place."""
_MAIL_LABELS = {"hz-gb-2312": "hz", "hz": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr", "utf-7": "utf-7",
         "unicode-1-1-utf-7": "utf-7", "utf8mb4": "utf-8", "big5-hkscs": "big5hkscs", "unicode": "utf-16", "utf-16": "utf-16",
         "ucs-2": "utf-16", "iso-10646-ucs-2": "utf-16"}  # fmt: skip
"""Labels in mail that the standard does not decode. The byte order of UTF-16 is detected from the bytes."""
_PYTHON_NAMES = {"big5": "big5", "shift_jis": "shift_jis", "euc-kr": "euc_kr", "iso-8859-8-i": "iso8859-8",
          "x-mac-cyrillic": "mac-cyrillic", "macintosh": "mac-roman", "windows-874": "cp874"}  # fmt: skip
"""Python's names for encodings of the standard, where they differ."""
_OTHER_LABELS = re.compile(
    r"(?:cp|ibm|windows|win|mac|iso|latin|koi8|big5|gb|euc|shift|sjis|ms|tis|utf|ks|johab|viscii)[-_\w.:]*"
)
"""Other labels that are passed to Python. Not all: some of its decoders (punycode, idna) are quadratic in the length."""
_FALLBACKS = {"big5": ("big5hkscs",), "cp950": ("big5hkscs",), "iso8859-2": ("cp1250",), "iso8859-5": ("cp1251",),
         "iso8859-6": ("cp1256",), "iso8859-7": ("cp1253",), "iso8859-8": ("cp1255",), "iso8859-13": ("cp1257",),
         "iso8859-4": ("cp1257",)}  # fmt: skip
"""Fallbacks for a charset that fails: a superset, or the code page that Windows programs send under its name."""

STATEFUL = ("iso2022_jp", "iso2022_kr", "hz", "utf-7")
_WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
_MULTIBYTE = ("gb18030", "cp932", "cp949", "cp950", "big5hkscs", "euc_jp")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_ESCAPES = ((re.compile(rb"\x1b\$\)C"), "iso2022_kr"), (re.compile(rb"\x1b(?:\$[@B]|\(J|\$\()"), "iso2022_jp"))
_META = re.compile(rb"<meta[^<>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.I)
DETECTED_BYTES = 4000
"""Bytes that the detector reads."""
MIN_DETECTABLE_BYTES = 3
"""With fewer non-ASCII bytes than this, windows-1252 is assumed."""
META_BYTES = 4096
"""Bytes of a part that are searched for ``<meta>``; the standard says 1024, mail programs write more before it."""
_C1 = {code: bytes([code]).decode("cp1252", "ignore") or None for code in range(0x80, 0xA0)}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_HAS_C1 = re.compile("[\u0080-\u0084\u0086-\u009f]")
"""The C1 controls without NEL: text does not contain them, so they indicate a wrong guess."""


@lru_cache(maxsize=1024)
def codec_of(label: str) -> str | None:
    """Python's codec for a charset label as written in mail; None if it is unknown or not allowed."""
    name = label.strip("\"' \t\r\n").partition("*")[0].lower()  # RFC 2231, 5: a language may follow
    name = re.split(r"[\s;,\"'=()]", name, maxsplit=1)[0]
    dashed = name.replace("_", "-")
    if codec := _MAIL_LABELS.get(dashed):
        return codec
    for variant in (name, dashed, dashed.removeprefix("x-"), re.sub(r"^(cp|iso|utf)-?", r"\1-", dashed), f"iso-{dashed}"):
        encoding = webencodings.lookup(variant)
        if encoding is not None and encoding.name not in ("replacement", "x-user-defined"):
            return _python_codec(_PYTHON_NAMES.get(encoding.name, encoding.name))
    if not _OTHER_LABELS.fullmatch(name):
        return None
    variants = (dashed, dashed.replace("-", ""), re.sub(r"^(?:x-|ms-?|win-?)", "cp", dashed), re.sub(r"[-:]\d+$", "", dashed))
    return next(filter(None, map(_python_codec, variants)), None)


def _python_codec(name: str) -> str | None:
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return None
    return _SUPERSETS.get(codec, codec)


def decode(data: bytes, label: str | None, markup: bool = False) -> tuple[str, str | None]:
    """Decode ``data``, declared as ``label`` (None: undeclared). Returns the text and a warning, or None.

    ``markup``: use a ``<meta>`` in the data. The warning is ``charset_undeclared``, ``charset_unknown``, ``charset_wrong``, or
    ``charset_broken`` if characters were lost. Never raises.
    """
    codec = codec_of(label) if label else None
    mismatch = "charset_undeclared" if not label else "charset_wrong" if codec else "charset_unknown"
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data[len(bom) if name == "utf-8" else 0 :].decode(name, "replace"), None
    if data.isascii():
        return _decode_seven_bits(data, codec, mismatch)
    if codec in STATEFUL:
        return _decode_stateful(data, codec)
    return _decode_eight_bits(data, codec, markup, mismatch)


def _decode_seven_bits(data: bytes, codec: str | None, mismatch: str) -> tuple[str, str | None]:
    """ASCII, unless escape sequences or NULs indicate another charset."""
    if codec in STATEFUL and codec is not None:
        return _decode_stateful(data, codec)
    for escape, name in _ESCAPES:
        if b"\x1b" in data and escape.search(data):
            return _decode_stateful(data, name)[0], mismatch
    if wide_codec := _wide_codec(data, codec):
        return data.decode(wide_codec, "replace"), None if codec in _WIDE else mismatch
    return data.decode("ascii"), mismatch if codec in _WIDE else None


def _wide_codec(data: bytes, codec: str | None) -> str | None:
    """UTF-16 or UTF-32 with byte order; None if the bytes are not wide, regardless of the declaration."""
    nuls = data.count(0)
    if nuls < len(data) / 4 and not (codec in _WIDE and (not data.isascii() or _CONTROLS.search(data))):
        return None
    if nuls == 0 and not data.isascii() and _decode_utf8(data, codec) is not None:
        return None
    if nuls > 0.6 * len(data) or (codec or "").startswith("utf-32"):
        return "utf-32-be" if data[:1] == b"\0" else "utf-32-le"
    if codec in ("utf-16-le", "utf-16-be") and nuls == 0:
        return codec
    # The high bytes of a text have few distinct values, the low bytes many.
    return "utf-16-be" if len(set(data[::2])) < len(set(data[1::2])) else "utf-16-le"


def _decode_stateful(data: bytes, codec: str) -> tuple[str, str | None]:
    """Decode a 7-bit charset with escape sequences. Japanese mail uses characters (NEC row 13) that only JIS X 0213 encodes."""
    attempts = [(data, codec)]
    if codec == "iso2022_jp":
        attempts += [(data, "iso2022_jp_ext"), (re.sub(rb"\x1b\$[@B]", b"\x1b$(Q", data), "iso2022_jp_2004")]
    for variant, name in attempts:
        try:
            return variant.decode(name), None
        except UnicodeDecodeError:
            continue
    return min(
        (variant.decode(name, "replace") for variant, name in attempts), key=lambda text: text.count("\ufffd")
    ), "charset_broken"


def _decode_eight_bits(data: bytes, codec: str | None, markup: bool, mismatch: str) -> tuple[str, str | None]:
    wide_codec = _wide_codec(data, codec)
    utf8 = None if wide_codec else _decode_utf8(data, codec)
    if utf8 is not None:
        return utf8.translate(_C1) if _HAS_C1.search(utf8) else utf8, None if codec == "utf-8" else mismatch
    for name in _candidates(data, codec, wide_codec, markup):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if not _HAS_C1.search(text):
            return text, None if name in (codec, wide_codec) else mismatch
    # A few broken bytes in a correctly declared big5 message must not turn all of it into Latin letters.
    for multibyte in (codec if codec in _MULTIBYTE else None, "utf-8"):
        if multibyte and _broken_share(text := data.decode(multibyte, "replace")) <= 0.5:
            return text, "charset_broken"
    names = [name for name in dict.fromkeys((codec, _detect(data), "cp1252")) if name is not None and name not in _WIDE]
    text = min(
        (data.decode(name, "replace") for name in names), key=lambda text: text.count("\ufffd") + len(_HAS_C1.findall(text))
    )
    return text, "charset_broken" if "\ufffd" in text else mismatch


def _detect(data: bytes) -> str:
    """The detected codec; one or two letters are too few to detect any but the most common charset."""
    start = next(match.start() for match in _BEYOND_ASCII.finditer(data))
    sample = data[start : start + DETECTED_BYTES]
    codec = codec_of(detect(sample)) or "cp1252"
    is_short = len(_BEYOND_ASCII.findall(sample)) < MIN_DETECTABLE_BYTES
    return "cp1252" if is_short and codec not in _MULTIBYTE else codec


def _decode_utf8(data: bytes, codec: str | None) -> str | None:
    """``data`` as UTF-8 if it is valid. Other text rarely is, except a few letters in a declared multibyte charset."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if codec not in _MULTIBYTE or sum(letter > "\u07ff" for letter in text) > 1 else None


def _candidates(data: bytes, codec: str | None, wide_codec: str | None, markup: bool) -> Iterator[str]:
    """Candidate codecs from the bytes, the label and the markup, in this order."""
    if wide_codec:
        yield wide_codec
    if codec and codec not in _WIDE:
        yield codec
        yield from _FALLBACKS.get(codec, ())
    if markup and (meta := _META.search(data, 0, META_BYTES)) and (meta_codec := codec_of(meta[1].decode("ascii", "replace"))):
        yield meta_codec


def _broken_share(text: str) -> float:
    """Share of the non-ASCII characters that are replacement characters."""
    non_ascii = len(text) - len(text.encode("ascii", "ignore"))
    return text.count("\ufffd") / max(1, non_ascii)
