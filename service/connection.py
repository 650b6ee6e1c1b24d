"""One connection of HTTP/1.1, with what uvicorn leaves open to whoever connects.

uvicorn's protocol bounds neither the time a request takes to come nor the size of its head, says 400 in plain text, answers
a broken request before the whole ones that came ahead of it, and closes while bytes are still to be read, which takes the
answer from the client with it (RFC 9112 9.6). A request costs a few comparisons here; time is looked at once a second.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

import httptools
from starlette.responses import JSONResponse
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

URL_BYTES = 8192
HEAD_BYTES = 32_768
HEADERS = 100
UPGRADES = 8
"""Requests to upgrade that are read from one piece of data: each costs a copy of the rest."""
PIPELINED = 100
"""Requests that wait for the answer to one before them on their connection. A kilobyte may hold thirty, and uvicorn needs ten
kilobytes for each."""
OVERHEAD = 8
"""Bytes of framing for a byte of body: a chunk of one byte takes six. Extensions and trailers are not for ever."""
LINGER_SECONDS = 3.0
"""How long what is still sent is thrown away after the last answer, so that the client gets to read it."""
ANSWER_SECONDS = 60.0
"""How long a client may take to read; BentoML ends a request that is not answered in half of it."""
BROKEN = 400, "The request is not HTTP/1.1."


class Part(Enum):
    """What of a request comes next."""

    HEAD = "head"
    BODY = "body"
    NONE = "none"


class Unread(Exception):
    """Stops the parser: status and sentence."""


class _Transport:
    """uvicorn's view of the transport: to close it is the connection's affair."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self.write, self.get_extra_info = transport.write, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.close, self.is_closing = connection.close, connection.is_closing


class Connection(HttpToolsProtocol):
    """From its first byte to its last. Every refusal is a 4xx, JSON ``{"error": sentence}``, and the end of the connection."""

    head_seconds = 10.0
    body_seconds = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self._part = Part.NONE
        self._own = False  # whether ``cycle`` is that of the request which is being read, and not of the one before
        self._over = self._closing = self._ended = False
        self._taken = self._body = 0
        self._keep = True
        self._refusal: tuple[int, str] = BROKEN
        super().connection_made(cast(asyncio.Transport, _Transport(transport, self)))
        self._allow(self.head_seconds)
        self._timer = self.loop.call_later(self._tick(), self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._over = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._over:
            return
        self._taken += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
        else:
            self._check_size()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all may still read: it gets its answer."""
        self._ended = True
        if self._part is not Part.NONE and not self._over:
            self._refuse(400, "The request ended before it was whole.")
        if self._closing or self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return self.scheme == "http"  # TLS has no half-open connections

    def close(self) -> None:
        """In place of the transport's: say that no more is coming, and close when the client does, or is given up on.

        To close at once would be a reset where the client is still sending, and take the answer from it (RFC 9112 9.6).
        """
        if self._closing:
            return
        self._over = self._closing = True
        self._allow(ANSWER_SECONDS if self._socket.get_write_buffer_size() else LINGER_SECONDS)
        if self._ended or not self._socket.can_write_eof():
            self._socket.close()
        else:
            self._socket.write_eof()
            self.flow.resume_reading()

    def is_closing(self) -> bool:
        return self._closing or self._socket.is_closing()

    # --- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part, self._own, self._body = Part.HEAD, False, 0
        self._allow(self.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is Part.HEAD:  # and no trailer, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.url) > URL_BYTES:
            self._stop(414, f"The request's target is larger than {URL_BYTES} bytes.")
        if len(self.headers) > HEADERS or sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._stop(431, f"The request has more than {HEADERS} headers or {HEAD_BYTES} bytes of them.")
        if len(self.pipeline) >= PIPELINED:
            self._stop(400, f"More than {PIPELINED} requests wait on this connection.")
        if not self.url.startswith(b"/"):
            self.url = self._target()
        before = self.cycle
        super().on_headers_complete()
        self._part, self._own = Part.BODY, self.cycle is not before
        if self._own:  # whoever is answered before all was read cannot know where the next request begins
            self._keep, self.cycle.keep_alive = self.cycle.keep_alive, False
        self._allow(self.body_seconds + LINGER_SECONDS)  # whoever reads the body says that it is late; this is for the rest

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._own and not self.cycle.response_started:
            self.cycle.keep_alive = self._keep
        self._part, self._own, self._taken = Part.NONE, False, 0
        self._allow(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._part is Part.NONE and not self._over:
            self._allow(ANSWER_SECONDS)

    def _should_upgrade(self) -> bool:
        """uvicorn leaves the request to ``handle_websocket_upgrade``; here, to ``_parse``."""
        return True

    # --- what uvicorn has not -------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Raises httptools.HttpParserError."""
        for _ in range(UPGRADES):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            else:
                return
        raise httptools.HttpParserError("too many upgrades")

    def _without_upgrade(self) -> bytes:
        """The head again, and a parser for it: a server may pass over Upgrade (RFC 9110 7.8), but the parser would lose the
        body, with which Java's client sends it."""
        lines = [self.parser.get_method() + b" " + self.url + f" HTTP/{self.parser.get_http_version()}".encode()]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name not in (b"connection", b"upgrade"):
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return b"\r\n".join([*lines, b"\r\n"])

    def _target(self) -> bytes:
        """A target in one of the rarer forms (RFC 9112 3.2) as a path: an address, and ``*``, which is all of the server."""
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":
            return b"/"
        if self.parser.get_method() == b"CONNECT":
            self._stop(400, "This server is no proxy.")
        url = httptools.parse_url(self.url)  # raises HttpParserInvalidURLError
        if not url.schema or not url.host:
            self._stop(400, "The request's target is neither a path nor an address.")
        return (url.path or b"/") + (b"?" + url.query if url.query else b"")

    def _stop(self, status: int, sentence: str) -> None:
        self._refusal = status, sentence
        raise Unread

    def _check_size(self) -> None:
        """What is kept of a request that is not whole is bounded."""
        if self._taken <= HEAD_BYTES or self._over:
            return
        if self._part is Part.HEAD and len(self.url) > URL_BYTES:
            self._refuse(414, f"The request's target is larger than {URL_BYTES} bytes.")
        elif self._part is Part.HEAD:
            self._refuse(431, f"The request has more than {HEADERS} headers or {HEAD_BYTES} bytes of them.")
        elif self._taken > OVERHEAD * self._body + 2 * HEAD_BYTES:
            self._refuse(400, "The request has more framing than body.")

    def _refuse(self, status: int, sentence: str) -> None:
        """Say it once those requests are answered that came whole before, and close."""
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        headers = {"Connection": "close"}
        if self._own and self.pipeline:
            self._over = True
            self.pipeline[0] = cycle, cast(Any, JSONResponse({"error": sentence}, status, headers))
        elif not self._own and not answered:
            self._over = True
            cycle.keep_alive = False
        else:
            if not (self._own and cycle.response_started):
                self._write(status, {"error": sentence})
            if not answered:
                cycle.disconnected = True
                cycle.message_event.set()
            self.close()

    def _write(self, status: int, content: Mapping[str, str]) -> None:
        body = json.dumps(content).encode()
        length = b"content-length: " + str(len(body)).encode()
        default = [name + b": " + value for name, value in self.server_state.default_headers]
        lines = [*default, b"content-type: application/json", length, b"connection: close", b"", body]
        self._socket.write(STATUS_LINE[status] + b"\r\n".join(lines))

    def _allow(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds

    def _tick(self) -> float:
        return min(1.0, self.head_seconds / 4)

    def _watch(self) -> None:
        self._timer = self.loop.call_later(self._tick(), self._watch)
        if self.loop.time() < self._deadline:
            return
        if self._over or self._part is Part.NONE:
            self._socket.abort()
        elif self._part is Part.HEAD:
            self._refuse(408, f"The request's head did not come within {self.head_seconds:g} seconds.")
        elif self.flow.read_paused:  # it waits for us
            self._allow(self.body_seconds)
        else:
            self._refuse(408, f"The body did not come within {self.body_seconds:g} seconds.")


def install(head_seconds: float, body_seconds: float) -> None:
    """Have uvicorn speak through ``Connection``: BentoML makes its configuration itself, and names no protocol in it."""
    Connection.head_seconds, Connection.body_seconds = head_seconds, body_seconds
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
