"""Exceptions for refused requests."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A refused request: HTTP status (4xx, or 503 for a problem of the service), error message and response headers."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


class Empty(Refused):
    """A request in which nothing can be read; counted separately, since many of them indicate a broken client."""

    def __init__(self, sentence: str) -> None:
        super().__init__(422, sentence)
