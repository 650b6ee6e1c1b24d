"""The rim of the HTTP application: what is counted of every request, and what is said when we are wrong ourselves."""

from __future__ import annotations

import logging
import time
import traceback

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("restill.http")

ROUTES = ("/classify", "/classify_batch", "/classify_mail", "/feedback")
"""The routes that are counted."""

GONE = 499
"""What is counted for a caller who left before the request was read; nobody gets it."""


class Rim:
    """Counts requests and their statuses. An exception becomes a 500 and a log line that quotes no value."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in ROUTES:
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            status = GONE
        except Exception as error:  # its message may quote the text that it choked on
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s: %s in %s, line %s", scope["path"], type(error).__name__, place.name, place.lineno)
            if status == 0:
                await JSONResponse({"error": "The service made a mistake."}, status_code=500)(scope, receive, noting)
        finally:
            scope["app"].state.worker.meters.request(scope["path"], status or 500, time.perf_counter() - begun)


class Readiness:
    """Answers /readyz in place of BentoML, whose answer does not know whether, and with what, we can serve."""

    def __init__(self, app: ASGIApp, app_of_worker: Starlette) -> None:
        self._app, self._http = app, app_of_worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/readyz":
            await self._app(scope, receive, send)
            return
        state = self._http.state.worker.serving.state()
        ready = state["release"] is not None
        await JSONResponse({"ready": ready, **state}, status_code=200 if ready else 503)(scope, receive, send)
