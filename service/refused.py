"""A request that is the client's to mend."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """HTTP status (4xx, or 503 where it is ours to wait for), a sentence, and the headers that say more."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = headers


class Empty(Refused):
    """A request without a text to judge; counted apart, since a flood of them tells of a broken client."""

    def __init__(self, sentence: str) -> None:
        super().__init__(422, sentence)
