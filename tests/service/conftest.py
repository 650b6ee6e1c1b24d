"""The service as a test meets it: a home of its own, a release, a caller on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import http
from service.config import Config, read_config

LOOPBACK = ("127.0.0.1", 50_000)


@pytest.fixture
def config(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """What the service is started with: dev mode, and a release that the store has no say in."""
    variables = {"RESTILL_HOME": str(tmp_path / "var"), "RESTILL_DEV": "1", "RESTILL_RELEASE": str(release)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_config(variables)


@pytest.fixture
def client(config: Config) -> Iterator[TestClient]:
    with TestClient(http, client=LOOPBACK) as opened:
        yield opened
