"""What a request may look like, and the sentence that says so when it does not. A text never stands in an error."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request


class Refused(Exception):
    """A request that is the client's to mend: HTTP status (4xx) and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Empty(Refused):
    """A request without a text to judge; counted apart, since a flood of them tells of a broken client."""

    def __init__(self, sentence: str) -> None:
        super().__init__(422, sentence)


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


async def read_body(request: Request, limit: int, media_type: str) -> bytes:
    """The body, of at most ``limit`` bytes. Raises Refused: 415 for another media type, 413 for more bytes."""
    given = request.headers.get("content-type", media_type).partition(";")[0].strip().lower()
    if given != media_type:
        raise Refused(415, f"Content-Type is {given[:80]!r}; send {media_type}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Refused(413, f"The body is larger than {limit} bytes.")
    return bytes(body)


def parse(model: type[B], body: bytes) -> B:
    """The JSON body as ``model``. Raises Refused: 400 for what is not JSON in UTF-8, 422 for wrong fields."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Refused(400, f"The body is not JSON in UTF-8: {first['msg']}.") from None
        # An unknown field's name may be somebody's text: only our own names are repeated.
        known = first["loc"] and first["loc"][0] in model.model_fields
        place = ".".join(map(str, first["loc"][:2])) if known else "the body"
        raise Refused(422, f"{place}: {first['msg']}; an object with {model.expected} is expected.") from None


def check_text(text: str, limit: int, place: str) -> None:
    """Raises Refused (422) for a text that is blank or longer than ``limit`` characters."""
    if not text.strip():
        raise Empty(f"{place} is empty.")
    if len(text) > limit:
        raise Refused(422, f"{place} has {len(text)} characters; at most {limit} are allowed.")
