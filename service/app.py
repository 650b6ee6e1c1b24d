"""The Bento: serves one release over HTTP.

BentoML manages the processes. All requests go to a Starlette application, so that every refusal is a 4xx with a sentence and
no input can reach a log. BentoML's own access log and metrics are off: both repeat a request's path, which is
client input as well.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import bentoml
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, request_response

from service.config import ConfigError, full_paths, read_config
from service.connection import install
from service.meters import Meters, exposition, make_folder
from service.middleware import FEEDBACK_ROUTE, RequestMetrics, RoutePrecedence
from service.port import check_served_port
from service.record import Scored, observe
from service.refused import Empty, Refused
from service.release import Release, ReleaseError
from service.requests import JSON, parse, read_body
from service.worker import Worker

FEEDBACK_THREADS = 4
"""Feedback waits for the disk in separate threads: a hanging disk must not use up the threads for classification."""
LARGE_BODY = 200_000
"""Bytes of a body above which its input is answered in a thread: a large image takes as long to decode as a batch of texts."""
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


def score(release: Release, placed: list[tuple[Any, str]], salt: bytes) -> list[Scored]:
    """Answer raw inputs, each with its place in the body. Raises Refused for one that is empty, too large or unreadable."""
    for raw, place in placed:
        release.serving.check(raw, release.limits, place)
    start = time.perf_counter()
    inputs = [release.preprocess(raw) for raw, _ in placed]
    for model_input, (_, place) in zip(inputs, placed, strict=True):
        if not model_input:
            raise Empty(f"{place} holds nothing that can be read.")
    answers, probabilities, features = release.predict(inputs)
    latency_us = (time.perf_counter() - start) * 1e6 / len(inputs)
    rows = zip((raw for raw, _ in placed), inputs, answers, probabilities, features, strict=True)
    return [observe(release, *row, latency_us, salt) for row in rows]


def authorize(request: Request, scope: str) -> tuple[Worker, Release, str]:
    """The worker, the release for this request, and the client. Raises Refused."""
    worker: Worker = request.app.state.worker
    client = worker.access.admit(request.headers, request.client.host if request.client else None, scope)
    release = worker.swap.current
    if release is None:
        raise Refused(503, "No release is served yet; /readyz says when one is.")
    return worker, release, client


async def kind_route(request: Request) -> Response:
    """POST: the answer to the input of one of the kind's routes: the label, the score, the release, and the id for feedback."""
    path, swap = request.url.path, request.app.state.worker.swap
    if path not in swap.routes and (swap.current is not None or request.method != "POST"):
        raise HTTPException(404)
    if request.method != "POST":
        raise HTTPException(405, headers={"Allow": "POST"})
    worker, release, client = authorize(request, "classify")
    if (route := release.serving.routes.get(path)) is None:  # no release was served when this request came
        raise HTTPException(404)
    body, media_type = await read_body(request, release.limits["body_bytes"], route.media_types, CONFIG.body_seconds)
    decode = partial(route.decode, body, media_type, release.limits)
    placed = await run_in_threadpool(decode) if route.slow else decode()
    # A large batch takes as long as hundreds of single requests, and must not block them; nor may a large input.
    is_long = route.many or len(body) > LARGE_BODY
    scored = await run_in_threadpool(score, release, placed, worker.salt) if is_long else score(release, placed, worker.salt)
    answers = worker.publish(scored, path, client)
    return JSONResponse(answers if route.many else answers[0])


async def feedback(request: Request) -> Response:
    """POST {"id", "label", and the input}: a reviewer's label for an answer. 202 where it contradicts an earlier one."""
    worker, release, client = authorize(request, "feedback")
    # Base64 encodes three bytes as four.
    body, _ = await read_body(request, 2 * release.limits["body_bytes"], JSON, CONFIG.body_seconds)
    verdict = parse(release.serving.verdict, body)
    limiter: CapacityLimiter = request.app.state.feedback_threads
    outcome, response = await to_thread.run_sync(worker.review, verdict, release, client, limiter=limiter)
    return JSONResponse(response, status_code=202 if outcome == "contradicts" else 200)


async def model(request: Request) -> Response:
    """GET: the model card of the release in service, and the refused release, if any."""
    worker: Worker = request.app.state.worker
    release = worker.swap.current
    if release is None:
        return JSONResponse(worker.swap.state(), status_code=503)
    return JSONResponse({**release.card, **worker.swap.state(), "release": release.id})


async def index(request: Request) -> Response:
    """GET: the routes. BentoML's own page would make the browser load scripts from other hosts."""
    release = request.app.state.worker.swap.current
    routes = [route.path for route in ROUTES] + ([] if release is None else list(release.serving.routes))
    return JSONResponse({"service": "restill", "routes": routes})


async def alive(request: Request) -> Response:
    """GET: liveness of this process."""
    return JSONResponse({"alive": True})


async def ready(request: Request) -> Response:
    """GET: readiness and the release in service, which BentoML's own route does not know."""
    state = request.app.state.worker.swap.state()
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


ROUTES = [
    Route("/", index, methods=["GET"]),
    Route(FEEDBACK_ROUTE, feedback, methods=["POST"]),
    Route("/model", model, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/livez", alive, methods=["GET"]),
    Route("/healthz", alive, methods=["GET"]),
    Route("/readyz", ready, methods=["GET"]),
    Route("/schema.json", schema, methods=["GET"]),
    Route("/docs.json", openapi, methods=["GET"]),
]
"""The routes of every kind; those of the served release's own kind come behind them."""

http = Starlette(
    routes=ROUTES,
    middleware=[Middleware(RequestMetrics)],
    exception_handlers={Refused: refusal_response, HTTPException: routing_error_response},
    lifespan=lifespan,
)
http.router.default = request_response(kind_route)  # which routes a kind has is known only when a release is served
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
