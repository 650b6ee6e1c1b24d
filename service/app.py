"""The Bento: serves one release over HTTP.

BentoML manages the processes. All requests go to a Starlette application, so that every refusal is a 4xx with a sentence and
no text of a request can reach a log. BentoML's own access log and metrics are off: both repeat a request's path, which is
client input as well.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import bentoml
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.config import ConfigError, full_paths, read_config
from service.connection import install
from service.mail import parse_mail
from service.meters import Meters, exposition, make_folder
from service.middleware import RequestMetrics, RoutePrecedence
from service.port import check_served_port
from service.record import ScoredText, mail_text, observe
from service.refused import Empty, Refused
from service.release import Release, ReleaseError
from service.requests import JSON, MAIL, ManyTexts, OneText, Verdict, check_text, parse, read_body
from service.worker import Worker

FEEDBACK_THREADS = 4
"""Feedback waits for the disk in separate threads: a hanging disk must not use up the threads for classification."""
ROUTING_ERRORS = {
    404: "There is no such route; GET / names those that there are.",
    405: "This route does not take this method; the header Allow names what it takes.",
}

logging.getLogger("restill").setLevel(logging.INFO)  # BentoML's level would hide release changes

try:
    CONFIG = read_config(os.environ)
except ConfigError as error:
    sys.exit(f"restill: {error}")
install(CONFIG.head_seconds, CONFIG.body_seconds)


def score_texts(release: Release, texts: list[str], places: list[str], salt: bytes) -> list[ScoredText]:
    """Classify texts. Raises Refused for a text that is blank, too long, or unreadable."""
    for text, place in zip(texts, places, strict=True):
        check_text(text, release.limits["characters"], place)
    start = time.perf_counter()
    normalised = [release.normalise(text) for text in texts]
    for text, place in zip(normalised, places, strict=True):
        if not text:
            raise Empty(f"{place} holds no readable text.")
    answers, probabilities, features = release.predict(normalised)
    latency_us = (time.perf_counter() - start) * 1e6 / len(texts)
    rows = zip(texts, normalised, answers, probabilities, features, strict=True)
    return [observe(release, *row, latency_us, salt) for row in rows]


def authorize(request: Request, scope: str) -> tuple[Worker, Release, str]:
    """The worker, the release for this request, and the client. Raises Refused."""
    worker: Worker = request.app.state.worker
    client = worker.access.admit(request.headers, request.client.host if request.client else None, scope)
    release = worker.serving.current
    if release is None:
        raise Refused(503, "No release is served yet; /readyz says when one is.")
    return worker, release, client


async def classify(request: Request) -> Response:
    """POST {"text": ...}: the label, the score, the release, and the id for feedback."""
    worker, release, client = authorize(request, "classify")
    body = parse(OneText, await read_body(request, release.limits["body_bytes"], JSON, CONFIG.body_seconds))
    return JSONResponse(worker.publish(score_texts(release, [body.text], ["text"], worker.salt), "/classify", client)[0])


async def classify_batch(request: Request) -> Response:
    """POST {"texts": [...]}: the same for each text, in order; an invalid text refuses the whole batch, with its index."""
    worker, release, client = authorize(request, "classify")
    body = parse(ManyTexts, await read_body(request, release.limits["body_bytes"], JSON, CONFIG.body_seconds))
    if not body.texts:
        raise Empty(f"texts holds 0 texts; 1 to {release.limits['batch']} are allowed.")
    if len(body.texts) > release.limits["batch"]:
        raise Refused(422, f"texts holds {len(body.texts)} texts; 1 to {release.limits['batch']} are allowed.")
    places = [f"texts.{number}" for number in range(len(body.texts))]
    # A large batch takes as long as hundreds of single requests, and must not block them.
    scored_texts = await run_in_threadpool(score_texts, release, body.texts, places, worker.salt)
    return JSONResponse(worker.publish(scored_texts, "/classify_batch", client))


async def classify_mail(request: Request) -> Response:
    """POST a raw message (message/rfc822): the same for its subject and text."""
    worker, release, client = authorize(request, "classify")
    raw = await read_body(request, release.limits["body_bytes"], MAIL, CONFIG.body_seconds)
    if not raw.strip():
        raise Empty("The message is empty.")
    mail = await run_in_threadpool(parse_mail, raw)
    scored_texts = score_texts(release, [mail_text(mail, release.limits["characters"])], ["The message"], worker.salt)
    return JSONResponse(worker.publish(scored_texts, "/classify_mail", client)[0])


async def feedback(request: Request) -> Response:
    """POST {"id", "label", "text" or "raw"}: a reviewer's label for an answer. 202 where it contradicts an earlier one."""
    worker, release, client = authorize(request, "feedback")
    # Base64 encodes three bytes as four.
    verdict = parse(Verdict, await read_body(request, 2 * release.limits["body_bytes"], JSON, CONFIG.body_seconds))
    limiter: CapacityLimiter = request.app.state.feedback_threads
    outcome, response = await to_thread.run_sync(worker.review, verdict, release, client, limiter=limiter)
    return JSONResponse(response, status_code=202 if outcome == "contradicts" else 200)


async def model(request: Request) -> Response:
    """GET: the model card of the release in service, and the refused release, if any."""
    worker: Worker = request.app.state.worker
    release = worker.serving.current
    if release is None:
        return JSONResponse(worker.serving.state(), status_code=503)
    return JSONResponse({**release.card, **worker.serving.state(), "release": release.id})


async def index(request: Request) -> Response:
    """GET: the routes. BentoML's own page would make the browser load scripts from other hosts."""
    return JSONResponse({"service": "restill", "routes": [route.path for route in request.app.routes]})


async def alive(request: Request) -> Response:
    """GET: liveness of this process."""
    return JSONResponse({"alive": True})


async def ready(request: Request) -> Response:
    """GET: readiness and the release in service, which BentoML's own route does not know."""
    state = request.app.state.worker.serving.state()
    is_ready = state["release"] is not None
    return JSONResponse({"ready": is_ready, **state}, status_code=200 if is_ready else 503)


async def schema(request: Request) -> Response:
    """GET: the schema for BentoML's client."""
    return JSONResponse(cast(Any, Restill).schema())


async def openapi(request: Request) -> Response:
    """GET: BentoML's OpenAPI description of the service."""
    return JSONResponse(cast(Any, Restill).openapi_spec.asdict())


async def metrics(request: Request) -> Response:
    """GET: the metrics of all workers."""
    return Response(await run_in_threadpool(exposition), media_type="text/plain; version=0.0.4")


async def refusal_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    if isinstance(error, Empty):
        request.app.state.worker.meters.empty()
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else error.headers
    return JSONResponse({"error": error.sentence}, status_code=error.status, headers=headers)


async def routing_error_response(request: Request, error: Exception) -> Response:
    """Errors of Starlette's router. The path and the method are client input, and not repeated."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        methods = {*(error.headers or {})["Allow"].split(", "), "OPTIONS"}
        headers = {"Allow": ", ".join(sorted(methods))}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        return JSONResponse({"error": ROUTING_ERRORS[405]}, status_code=405, headers=headers)
    sentence = ROUTING_ERRORS.get(error.status_code, f"{error.detail}.")
    return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Run one worker. An invalid fixed release stops the start."""
    worker = await run_in_threadpool(Worker, read_config(os.environ), Meters())
    app.state.worker = worker
    app.state.feedback_threads = CapacityLimiter(FEEDBACK_THREADS)  # bound to the running event loop
    try:
        yield
    finally:
        await run_in_threadpool(worker.close)


http = Starlette(
    routes=[
        Route("/", index, methods=["GET"]),
        Route("/classify", classify, methods=["POST"]),
        Route("/classify_batch", classify_batch, methods=["POST"]),
        Route("/classify_mail", classify_mail, methods=["POST"]),
        Route("/feedback", feedback, methods=["POST"]),
        Route("/model", model, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/livez", alive, methods=["GET"]),
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
        Route("/schema.json", schema, methods=["GET"]),
        Route("/docs.json", openapi, methods=["GET"]),
    ],
    middleware=[Middleware(RequestMetrics)],
    exception_handlers={Refused: refusal_response, HTTPException: routing_error_response},
    lifespan=lifespan,
)
http.router.redirect_slashes = False  # a redirect would repeat the client's path

SETTINGS: dict[str, Any] = {
    "workers": CONFIG.workers,
    # OpenTelemetry's middleware is always on and costs more than the model.
    "tracing": {"excluded_urls": ".*"},
    "traffic": {"timeout": 30},
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
}


@bentoml.service(name="restill", **SETTINGS)
@bentoml.asgi_app(http, path="/")
class Restill:
    """The service; ``lifespan`` above starts a worker."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def prepare() -> None:
        """Runs once before the workers, which would resolve ``var`` in the Bento's folder instead of the user's."""
        os.environ.update(full_paths(os.environ) | make_folder())
        check_served_port()
        release_folder = read_config(os.environ).release
        try:
            if release_folder is not None:
                Release(release_folder)
        except (ReleaseError, OSError) as error:  # checked here, since failing workers are restarted for ever
            sys.exit(f"restill: RESTILL_RELEASE: {error}")


cast(Any, Restill).add_asgi_middleware(RoutePrecedence, http_app=http)
