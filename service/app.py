"""The Bento: one release behind HTTP.

BentoML owns the process, the workers, /livez, /readyz and /metrics. The routes are a Starlette application mounted
in it, so that every refusal is a 4xx with a sentence and no text of a request can reach a log.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import bentoml
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.release import Answer, Release
from service.requests import ManyTexts, OneText, Refused, check_text, parse, read_body
from service.text import document, parse_mail

RELEASE_VARIABLE = "RESTILL_RELEASE"
"""A folder to serve in place of the release that was packed beside this package."""


def answer(release: Release, texts: list[str], places: list[str]) -> list[Answer]:
    """One answer a text. Raises Refused for a text that is blank, too long, or has nothing to read in it."""
    for text, place in zip(texts, places, strict=True):
        check_text(text, release.limits["characters"], place)
    normalised = [release.normalise(text) for text in texts]
    for text, place in zip(normalised, places, strict=True):
        if not text:
            raise Refused(422, f"{place} holds no readable text.")
    return release.answer_normalised(normalised)


async def classify(request: Request) -> Response:
    """POST {"text": ...}: the label, its score and the release that says so."""
    release: Release = request.app.state.release
    body = parse(OneText, await read_body(request, release.limits["body_bytes"], "application/json"))
    return JSONResponse(asdict(answer(release, [body.text], ["text"])[0]))


async def classify_batch(request: Request) -> Response:
    """POST {"texts": [...]}: the same for each text, in order; one bad text refuses the whole batch by its number."""
    release: Release = request.app.state.release
    body = parse(ManyTexts, await read_body(request, release.limits["body_bytes"], "application/json"))
    if not 1 <= len(body.texts) <= release.limits["batch"]:
        raise Refused(422, f"texts holds {len(body.texts)} texts; 1 to {release.limits['batch']} are allowed.")
    places = [f"texts.{number}" for number in range(len(body.texts))]
    # A large batch takes as long as hundreds of single requests, which must not wait for it.
    answers = await run_in_threadpool(answer, release, body.texts, places)
    return JSONResponse([asdict(entry) for entry in answers])


async def classify_mail(request: Request) -> Response:
    """POST a raw message (message/rfc822): the same for its subject and text."""
    release: Release = request.app.state.release
    raw = await read_body(request, release.limits["body_bytes"], "message/rfc822")
    if not raw.strip():
        raise Refused(422, "The message is empty.")
    mail = await run_in_threadpool(parse_mail, raw)
    text = document(mail.subject, mail.text)[: release.limits["characters"]]
    return JSONResponse(asdict(answer(release, [text], ["The message"])[0]))


async def model(request: Request) -> Response:
    """GET: the model card of the release in service."""
    release: Release = request.app.state.release
    return JSONResponse({"release": release.id, **release.card})


async def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.sentence}, status_code=error.status)


http = Starlette(
    routes=[
        Route("/classify", classify, methods=["POST"]),
        Route("/classify_batch", classify_batch, methods=["POST"]),
        Route("/classify_mail", classify_mail, methods=["POST"]),
        Route("/model", model, methods=["GET"]),
    ],
    exception_handlers={Refused: refuse},
)


@bentoml.service(
    name="restill",
    workers=1,
    # OpenTelemetry's middleware is always on and costs more than the model.
    tracing={"excluded_urls": ".*"},
    traffic={"timeout": 30},
)
@bentoml.asgi_app(http, path="/")
class Restill:
    """Loads the release before the first request; a release that is not whole stops the start with its reason."""

    def __init__(self) -> None:
        packed = Path(__file__).parents[1] / "release"
        http.state.release = Release(Path(os.environ.get(RELEASE_VARIABLE, packed)))
