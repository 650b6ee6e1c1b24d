"""The rim of the HTTP application: what is counted of every request, and what is said when we are wrong ourselves."""

from __future__ import annotations

import logging
import time
import traceback

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("restill.http")

ROUTES = ("/classify", "/classify_batch", "/classify_mail", "/feedback")
"""The routes that are counted."""

GONE = 499
"""What is counted for a caller who left before the request was read; nobody gets it."""


class RequestMetrics:
    """Counts requests and their statuses. An exception becomes a 500 and a log line that quotes no value."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        counted = scope["path"] in ROUTES
        try:
            await self._app(scope, receive, noting)
        except ClientDisconnect:  # BentoML would wait for an answer as long as it waits for any
            await Response(status_code=GONE)(scope, receive, noting)
        except Exception as error:  # its message may quote the text that it choked on
            place = traceback.extract_tb(error.__traceback__)[-1]
            route = scope["path"] if counted else "another route"
            log.error("%s: %s in %s, line %s", route, type(error).__name__, place.name, place.lineno)
            if status == 0:
                await JSONResponse({"error": "The service made a mistake."}, status_code=500)(scope, receive, noting)
        finally:
            if counted:
                scope["app"].state.worker.meters.request(scope["path"], status or 500, time.perf_counter() - begun)


class RoutePrecedence:
    """Leads every request past BentoML's router to ours: its errors are no sentences, and its redirects repeat the path."""

    def __init__(self, app: ASGIApp, ours: ASGIApp) -> None:
        self._app, self._ours = app, ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._ours if scope["type"] == "http" else self._app)(scope, receive, send)
