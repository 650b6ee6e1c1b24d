"""Middleware of the HTTP application: request metrics, the response to unexpected exceptions, and route precedence."""

from __future__ import annotations

import logging
import time
import traceback

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("restill.http")

FEEDBACK_ROUTE = "/feedback"
"""The one route of all kinds that is counted, beside a kind's own."""

NO_RELEASE = "(no release)"
"""As which requests count while no release says which routes there are."""

CLIENT_CLOSED_REQUEST = 499
"""Status in the metrics for a client that disconnected before the request was read."""


class RequestMetrics:
    """Counts requests and their statuses. An exception becomes a 500 and a log line that quotes no value."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        route = _counted(scope)
        try:
            await self._app(scope, receive, send_and_record_status)
        except ClientDisconnect:  # without a response, BentoML would wait until its timeout
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send_and_record_status)
        except Exception as error:  # its message may quote the input that caused it
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s: %s in %s, line %s", route or "another route", type(error).__name__, frame.name, frame.lineno)
            if status == 0:
                await JSONResponse({"error": "The service made a mistake."}, status_code=500)(
                    scope, receive, send_and_record_status
                )
        finally:
            if route is not None:
                scope["app"].state.worker.meters.request(route, status or 500, time.perf_counter() - start)


def _counted(scope: Scope) -> str | None:
    """The route under which a request is counted, never anything else that a client sent; None: it is not counted."""
    swap = scope["app"].state.worker.swap
    if scope["path"] == FEEDBACK_ROUTE or scope["path"] in swap.routes:
        return str(scope["path"])
    return NO_RELEASE if swap.current is None and scope["method"] == "POST" else None


class RoutePrecedence:
    """Bypasses BentoML's router, whose errors are not JSON sentences and whose redirects repeat the path."""

    def __init__(self, app: ASGIApp, http_app: ASGIApp) -> None:
        self._app, self._http_app = app, http_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._http_app if scope["type"] == "http" else self._app)(scope, receive, send)
