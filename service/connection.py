"""An HTTP/1.1 connection with the limits that uvicorn lacks.

uvicorn's protocol limits neither the time a request takes to arrive nor the size of its head, sends 400 as plain text, answers
a broken request before the complete ones ahead of it, and closes with unread bytes, so that the client loses the response
(RFC 9112 9.6). The cost is a few comparisons per request; deadlines are checked once a second.
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
"""Upgrade requests that are parsed from one piece of data: each costs a copy of the rest."""
PIPELINED = 100
"""Pipelined requests that wait on one connection. A kilobyte may hold thirty, and uvicorn needs ten kilobytes for each."""
MAX_OVERHEAD = 8
"""Most bytes of framing per byte of body: a chunk of one byte takes six. Bounds chunk extensions and trailers."""
LINGER_SECONDS = 3.0
"""How long input is discarded after the last response, so that the client can read that (lingering close)."""
ANSWER_SECONDS = 60.0
"""How long a client may take to read a response; BentoML ends a request after half of that."""
BAD_REQUEST = 400, "The request is not HTTP/1.1."


class Part(Enum):
    """The part of a request that is expected next."""

    HEAD = "head"
    BODY = "body"
    NONE = "none"


class RequestRefused(Exception):
    """Raised in a parser callback to stop the parser; ``Connection._refusal`` has status and sentence."""


class _TransportProxy:
    """The transport as uvicorn sees it: closing is delegated to the connection."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self.write, self.get_extra_info = transport.write, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.close, self.is_closing = connection.close, connection.is_closing


class Connection(HttpToolsProtocol):
    """Every refusal is a 4xx with the JSON ``{"error": sentence}`` and closes the connection."""

    head_seconds = 10.0
    body_seconds = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._raw_transport = transport
        self._part = Part.NONE
        self._cycle_is_current = False  # whether ``cycle`` is that of the request being read, not of the previous one
        self._done_reading = self._closing = self._got_eof = False
        self._bytes_received = self._body_bytes = 0
        self._keep_alive = True
        self._refusal: tuple[int, str] = BAD_REQUEST
        super().connection_made(cast(asyncio.Transport, _TransportProxy(transport, self)))
        self._set_deadline(self.head_seconds)
        self._timer = self.loop.call_later(self._check_interval(), self._check_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._done_reading = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._done_reading:
            return
        self._bytes_received += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
        else:
            self._check_size()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has finished sending may still read: it gets its response."""
        self._got_eof = True
        if self._part is not Part.NONE and not self._done_reading:
            self._refuse(400, "The request ended before it was whole.")
        if self._closing or self.cycle is None or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return self.scheme == "http"  # TLS has no half-open connections

    def close(self) -> None:
        """Replaces the transport's ``close``: send EOF, then close when the client does or at the deadline.

        Closing at once would reset a connection on which the client is still sending, and lose the response (RFC 9112 9.6).
        """
        if self._closing:
            return
        self._done_reading = self._closing = True
        self._set_deadline(ANSWER_SECONDS if self._raw_transport.get_write_buffer_size() else LINGER_SECONDS)
        if self._got_eof or not self._raw_transport.can_write_eof():
            self._raw_transport.close()
        else:
            self._raw_transport.write_eof()
            self.flow.resume_reading()

    def is_closing(self) -> bool:
        return self._closing or self._raw_transport.is_closing()

    # --- the parser's callbacks -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part, self._cycle_is_current, self._body_bytes = Part.HEAD, False, 0
        self._set_deadline(self.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part is Part.HEAD:  # ignore trailers, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.url) > URL_BYTES:
            self._abort_parsing(414, f"The request's target is larger than {URL_BYTES} bytes.")
        if len(self.headers) > HEADERS or sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._abort_parsing(431, f"The request has more than {HEADERS} headers or {HEAD_BYTES} bytes of them.")
        if len(self.pipeline) >= PIPELINED:
            self._abort_parsing(400, f"More than {PIPELINED} requests wait on this connection.")
        if not self.url.startswith(b"/"):
            self.url = self._normalised_target()
        previous = self.cycle
        super().on_headers_complete()
        self._part, self._cycle_is_current = Part.BODY, self.cycle is not previous
        if self._cycle_is_current:  # a response before the end of the request leaves no boundary for the next one
            self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        # The handler reports a late body; this deadline is for bodies that nobody reads.
        self._set_deadline(self.body_seconds + LINGER_SECONDS)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._cycle_is_current and not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        self._part, self._cycle_is_current, self._bytes_received = Part.NONE, False, 0
        self._set_deadline(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._part is Part.NONE and not self._done_reading:
            self._set_deadline(ANSWER_SECONDS)

    def _should_upgrade(self) -> bool:
        """uvicorn would call ``handle_websocket_upgrade``; here ``_parse`` handles upgrades."""
        return True

    # --- not in uvicorn -------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        """Raises httptools.HttpParserError."""
        for _ in range(UPGRADES):
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._restart_without_upgrade() + data[upgrade.args[0] :]
            else:
                return
        raise httptools.HttpParserError("too many upgrades")

    def _restart_without_upgrade(self) -> bytes:
        """Make a new parser, and return the head for it without Upgrade. A server may ignore Upgrade (RFC 9110 7.8), but the
        parser would lose the body; Java's client sends both."""
        lines = [self.parser.get_method() + b" " + self.url + f" HTTP/{self.parser.get_http_version()}".encode()]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name not in (b"connection", b"upgrade"):
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return b"\r\n".join([*lines, b"\r\n"])

    def _normalised_target(self) -> bytes:
        """The path of a target in absolute or asterisk form (RFC 9112 3.2)."""
        if self.url == b"*" and self.parser.get_method() == b"OPTIONS":
            return b"/"
        if self.parser.get_method() == b"CONNECT":
            self._abort_parsing(400, "This server is no proxy.")
        url = httptools.parse_url(self.url)  # raises HttpParserInvalidURLError
        if not url.schema or not url.host:
            self._abort_parsing(400, "The request's target is neither a path nor an address.")
        return (url.path or b"/") + (b"?" + url.query if url.query else b"")

    def _abort_parsing(self, status: int, sentence: str) -> None:
        self._refusal = status, sentence
        raise RequestRefused

    def _check_size(self) -> None:
        """Limit the data buffered for an incomplete request."""
        if self._bytes_received <= HEAD_BYTES or self._done_reading:
            return
        if self._part is Part.HEAD and len(self.url) > URL_BYTES:
            self._refuse(414, f"The request's target is larger than {URL_BYTES} bytes.")
        elif self._part is Part.HEAD:
            self._refuse(431, f"The request has more than {HEADERS} headers or {HEAD_BYTES} bytes of them.")
        elif self._bytes_received > MAX_OVERHEAD * self._body_bytes + 2 * HEAD_BYTES:
            self._refuse(400, "The request has more framing than body.")

    def _refuse(self, status: int, sentence: str) -> None:
        """Send the error after the responses to the complete requests before it, and close."""
        cycle = self.cycle
        complete = cycle is None or cycle.response_complete
        headers = {"Connection": "close"}
        if self._cycle_is_current and self.pipeline:
            self._done_reading = True
            self.pipeline[0] = cycle, cast(Any, JSONResponse({"error": sentence}, status, headers))
        elif not self._cycle_is_current and not complete:
            self._done_reading = True
            cycle.keep_alive = False
        else:
            if not (self._cycle_is_current and cycle.response_started):
                self._write(status, {"error": sentence})
            if not complete:
                cycle.disconnected = True
                cycle.message_event.set()
            self.close()

    def _write(self, status: int, content: Mapping[str, str]) -> None:
        body = json.dumps(content).encode()
        length = b"content-length: " + str(len(body)).encode()
        defaults = [name + b": " + value for name, value in self.server_state.default_headers]
        lines = [*defaults, b"content-type: application/json", length, b"connection: close", b"", body]
        self._raw_transport.write(STATUS_LINE[status] + b"\r\n".join(lines))

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds

    def _check_interval(self) -> float:
        return min(1.0, self.head_seconds / 4)

    def _check_deadline(self) -> None:
        self._timer = self.loop.call_later(self._check_interval(), self._check_deadline)
        if self.loop.time() < self._deadline:
            return
        if self._done_reading or self._part is Part.NONE:
            self._raw_transport.abort()
        elif self._part is Part.HEAD:
            self._refuse(408, f"The request's head did not come within {self.head_seconds:g} seconds.")
        elif self.flow.read_paused:  # uvicorn paused reading: the body waits for the application
            self._set_deadline(self.body_seconds)
        else:
            self._refuse(408, f"The body did not come within {self.body_seconds:g} seconds.")


def install(head_seconds: float, body_seconds: float) -> None:
    """Make uvicorn use ``Connection``: BentoML builds uvicorn's configuration itself and leaves the protocol at 'auto'."""
    Connection.head_seconds, Connection.body_seconds = head_seconds, body_seconds
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"
