"""Reading and validation of request bodies. An error message never quotes what a client sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from service.coding import codings, decode, encoded_limit
from service.refused import Refused

JSON = ("application/json",)
LENGTH_DIGITS = 18
"""Most digits of a Content-Length that is parsed as a number."""
UTF8 = ("utf-8", "utf8", "us-ascii")


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    expected: ClassVar[str]
    """The expected fields, for error messages."""


class Verdict(Body):
    """A reviewer's label for an answer; the kind's own class adds the input that was answered."""

    id: str
    label: str


B = TypeVar("B", bound=Body)


async def read_body(request: Request, limit: int, media_types: tuple[str, ...], seconds: float) -> tuple[bytes, str]:
    """(the decoded body, of at most ``limit`` bytes; its media type, "" where the Content-Type is missing).

    Raises Refused: 415 for an unsupported media type, charset or coding, 413 for more bytes, 408 if it takes longer than
    ``seconds`` to arrive, 400 if it does not match its declared coding.
    """
    media_type = _checked_media_type(request.headers.get("content-type", ""), media_types)
    if request.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":  # uvicorn decodes no others
        raise Refused(400, "The body has a Transfer-Encoding other than chunked; use Content-Encoding.")
    content_codings = codings(request.headers.getlist("content-encoding"))
    body = await _receive(request, encoded_limit(limit) if content_codings else limit, limit, seconds)
    return decode(body, content_codings, limit), media_type


def _checked_media_type(content_type: str, media_types: tuple[str, ...]) -> str:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type and media_type not in media_types:
        raise Refused(
            415, f"Content-Type is {media_type[:80]!r}; send {' or '.join(media_types)}.", {"Accept": ", ".join(media_types)}
        )
    charsets = [
        value.strip(" \"'") for name, _, value in (part.partition("=") for part in parameters) if name.strip() == "charset"
    ]
    if (media_type in JSON or media_types == JSON) and any(charset not in UTF8 for charset in charsets):
        raise Refused(415, "The charset of the Content-Type is not utf-8; send JSON in UTF-8.", {"Accept": JSON[0]})
    return media_type


async def _receive(request: Request, max_bytes: int, limit: int, seconds: float) -> bytes:
    """The body as sent, of at most ``max_bytes``. A larger Content-Length is refused before the body is read."""
    too_large = Refused(413, f"The body is larger than {limit} bytes.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > LENGTH_DIGITS or int(length) > max_bytes):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise Refused(408, f"The body did not come within {seconds:g} seconds.", {"Connection": "close"}) from None
    return bytes(body)


def parse(model: type[B], body: bytes) -> B:
    """Parse the JSON body as ``model``, ignoring a byte order mark (RFC 8259 8.1).

    Raises Refused: 400 for a body that is not JSON in UTF-8 or has duplicate names, 422 for invalid fields.
    """
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        raise Refused(400, f"The body is not JSON in UTF-8: it looks like {encoding[:6].upper()}.")
    body = body.removeprefix(b"\xef\xbb\xbf")
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise _validation_refusal(model, error, body) from None
    _check_strictly(body)
    return parsed


def _validation_refusal(model: type[Body], error: ValidationError, body: bytes) -> Refused:
    detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if detail["type"] == "json_invalid":
        return Refused(400, f"The body is not JSON in UTF-8: {detail['msg']}.")
    _check_strictly(body)
    # The name of an unknown field may be private text: only our own field names are repeated.
    is_own_field = detail["loc"] and detail["loc"][0] in model.model_fields
    location = ".".join(map(str, detail["loc"][:2])) if is_own_field else "the body"
    return Refused(422, f"{location}: {detail['msg']}; an object with {model.expected} is expected.")


def _check_strictly(body: bytes) -> None:
    """Raises Refused (400) for duplicate names, which parsers interpret differently, and for NaN and Infinity.

    pydantic has parsed the body before this and refused excessive nesting.
    """
    json.loads(body, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_int=str, parse_float=str)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise Refused(400, "The body names a field of an object twice.")


def _refuse_constant(name: str) -> None:
    raise Refused(400, "The body is not JSON: NaN and Infinity are no JSON numbers.")
