"""What a request may look like, and the sentence that says so when it does not. A text never stands in an error."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from service.coding import codings, decode, encoded_limit
from service.refused import Empty, Refused

JSON = ("application/json",)
MAIL = ("message/rfc822", "message/global")
"""A message (RFC 5322), and one whose headers are UTF-8 (RFC 6532). Its parts name their own charsets."""
DIGITS = 18
"""Of a Content-Length that is read as a number at all."""
UTF8 = ("utf-8", "utf8", "us-ascii")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    expected: ClassVar[str]
    """What the object must hold, as an error says it."""


class OneText(Body):
    expected = '"text"'
    text: str


class ManyTexts(Body):
    expected = '"texts"'
    texts: list[str]


class Verdict(Body):
    """A reviewer's label for an answer, with the message that was answered: its text, or the mail in base64."""

    expected = '"id", "label" and either "text" or "raw"'
    id: str
    label: str
    text: str | None = None
    raw: str | None = None


B = TypeVar("B", bound=Body)


async def read_body(request: Request, limit: int, media_types: tuple[str, ...], seconds: float) -> bytes:
    """The body without its content codings, of at most ``limit`` bytes; a missing Content-Type is taken for the right one.

    Raises Refused: 415 for another media type, charset or coding, 413 for more bytes, 408 where it takes longer than
    ``seconds`` to come, 400 where it is coded otherwise than it says.
    """
    _check_media_type(request.headers.get("content-type", ""), media_types)
    if request.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":  # others are not undone for us
        raise Refused(400, "The body has a Transfer-Encoding other than chunked; use Content-Encoding.")
    applied = codings(request.headers.getlist("content-encoding"))
    body = await _receive(request, encoded_limit(limit) if applied else limit, limit, seconds)
    return decode(body, applied, limit)


def _check_media_type(given: str, media_types: tuple[str, ...]) -> None:
    named, *parameters = (part.strip().lower() for part in given.split(";"))
    if named and named not in media_types:
        raise Refused(
            415, f"Content-Type is {named[:80]!r}; send {' or '.join(media_types)}.", {"Accept": ", ".join(media_types)}
        )
    charsets = [
        value.strip(" \"'") for name, _, value in (part.partition("=") for part in parameters) if name.strip() == "charset"
    ]
    if media_types == JSON and any(charset not in UTF8 for charset in charsets):
        raise Refused(415, "The charset of the Content-Type is not utf-8; send JSON in UTF-8.", {"Accept": JSON[0]})


async def _receive(request: Request, most: int, limit: int, seconds: float) -> bytes:
    """The bytes of the body as they come, at most ``most``. What is too long by its own Content-Length is not waited for."""
    large = Refused(413, f"The body is larger than {limit} bytes.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > DIGITS or int(length) > most):
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise large
    except TimeoutError:
        raise Refused(408, f"The body did not come within {seconds:g} seconds.", {"Connection": "close"}) from None
    return bytes(body)


def parse(model: type[B], body: bytes) -> B:
    """The JSON body as ``model``; a byte order mark before it is passed over (RFC 8259 8.1).

    Raises Refused: 400 for what is not JSON in UTF-8 or names a field twice, 422 for wrong fields.
    """
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        raise Refused(400, f"The body is not JSON in UTF-8: it looks like {encoding[:6].upper()}.")
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise _refused(model, error, body) from None
    _check_strictly(body)
    return parsed


def _refused(model: type[Body], error: ValidationError, body: bytes) -> Refused:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return Refused(400, f"The body is not JSON in UTF-8: {first['msg']}.")
    _check_strictly(body)
    # An unknown field's name may be somebody's text: only our own names are repeated.
    known = first["loc"] and first["loc"][0] in model.model_fields
    place = ".".join(map(str, first["loc"][:2])) if known else "the body"
    return Refused(422, f"{place}: {first['msg']}; an object with {model.expected} is expected.")


def _check_strictly(body: bytes) -> None:
    """Raises Refused (400) for a name that stands twice, where readers differ in what they take, and for NaN and Infinity.

    pydantic has read the body before, and refused what is nested too deep for this.
    """
    json.loads(body, object_pairs_hook=_each_once, parse_constant=_no_number, parse_int=str, parse_float=str)


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise Refused(400, "The body names a field of an object twice.")


def _no_number(name: str) -> None:
    raise Refused(400, "The body is not JSON: NaN and Infinity are no JSON numbers.")


def check_text(text: str, limit: int, place: str) -> None:
    """Raises Refused (422) for a text that is blank or longer than ``limit`` characters."""
    if not text.strip():
        raise Empty(f"{place} is empty.")
    if len(text) > limit:
        raise Refused(422, f"{place} has {len(text)} characters; at most {limit} are allowed.")
