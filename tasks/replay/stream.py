"""Replay traffic: an HTTP client for the service, and a reviewer who sends delayed labels for a sample of the inputs."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.stage import StageError

IDLE_SECONDS = 2
"""A server closes connections that idle for some seconds; a request sent at that moment would be lost."""


class Client:
    """A persistent connection to the service, with an API key."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._last = time.monotonic()
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """(status, JSON body) of one request."""
        if time.monotonic() - self._last > IDLE_SECONDS:
            self._connection.close()  # the next request opens it again
        self._connection.request(method, path, json.dumps(body) if body is not None else None, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        self._last = time.monotonic()
        return response.status, json.loads(content) if content else None


def is_reviewed(identity: str, share: float, seed: int) -> bool:
    """Whether a reviewer labels this input: a deterministic sample, the same in every run with the same seed."""
    digest = hashlib.sha256(f"{seed}:{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass
class Reviewer:
    """Labels a share of the inputs, each ``delay`` inputs after it was answered."""

    client: Client
    share: float
    delay: int
    seed: int
    label_count: int = 0
    _pending: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)

    def see(self, number: int, identity: str, answer: str, label: str, request: Mapping[str, Any]) -> None:
        """Register input ``number`` of the stream, answered under the journal id ``answer``."""
        if is_reviewed(identity, self.share, self.seed):
            self._pending.append((number + self.delay, {"id": answer, "label": label, **request}))

    def work(self, number: int) -> None:
        """Send the labels that are due once input ``number`` has been answered."""
        while self._pending and self._pending[0][0] <= number:
            _, body = self._pending.popleft()
            status, response = self.client.call("POST", "/feedback", body)
            if status not in (200, 201, 202):
                raise StageError(f"/feedback answered {status}: {response}")
            self.label_count += 1


def ask(client: Client, request: Mapping[str, Any]) -> dict[str, Any]:
    """The service's answer to one input. Raises StageError for any status but 200."""
    status, response = client.call("POST", "/classify", request)
    if status != 200:
        raise StageError(f"/classify answered {status}: {response}")
    return dict(response)
