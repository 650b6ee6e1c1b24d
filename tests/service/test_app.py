"""service/app.py over HTTP: good requests get answers, bad ones a 4xx with a sentence, and nothing gets a 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import http
from service.release import Release

JSON = {"content-type": "application/json"}


@pytest.fixture
def client(release: Path) -> Iterator[TestClient]:
    http.state.release = Release(release)
    with TestClient(http) as opened:
        yield opened


def test_one_text_many_texts_and_a_mail(client: TestClient) -> None:
    identity = http.state.release.id
    one = client.post("/classify", json={"text": "winner prize money free cash"})
    assert one.status_code == 200
    assert one.json() == {"label": "spam", "score": one.json()["score"], "release": identity}
    many = client.post("/classify_batch", json={"texts": ["winner prize money free cash", "kernel patch review"]}).json()
    assert [entry["label"] for entry in many] == ["spam", "ham"]
    assert many[0]["score"] == pytest.approx(one.json()["score"], abs=0.02)
    raw = b"Subject: winner\nContent-Type: text/html\n\n<p>prize money free cash</p>"
    mail = client.post("/classify_mail", content=raw, headers={"content-type": "message/rfc822"}).json()
    assert mail["label"] == "spam"


def test_the_model_card_names_the_release(client: TestClient) -> None:
    card = client.get("/model").json()
    assert card["release"] == http.state.release.id
    assert card["labels"] == ["ham", "spam"]


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "says"),
    [
        ("/classify", b"{bad", JSON, 400, "not JSON"),
        ("/classify", b'{"text": "\xff\xfe"}', JSON, 400, "not JSON in UTF-8"),
        ("/classify", b'{"text": "\\ud800"}', JSON, 400, "not JSON in UTF-8"),
        ("/classify", b"", JSON, 400, "not JSON"),
        ("/classify", b"[" * 50_000, JSON, 400, "not JSON"),
        ("/classify", b"[]", JSON, 422, "object"),
        ("/classify", b"{}", JSON, 422, "text: Field required"),
        ("/classify", b'{"text": 1}', JSON, 422, "valid string"),
        ("/classify", b'{"text": null}', JSON, 422, "valid string"),
        ("/classify", b'{"text": "a", "more": 1}', JSON, 422, "the body: Extra inputs"),
        ("/classify", b'{"text": ""}', JSON, 422, "text is empty"),
        ("/classify", b'{"text": " \\n\\t "}', JSON, 422, "text is empty"),
        ("/classify", b'{"text": "<br><p></p>"}', JSON, 422, "no readable text"),
        ("/classify", json.dumps({"text": "x" * 10_001}).encode(), JSON, 422, "at most 10000"),
        ("/classify", b"x" * 100_001, JSON, 413, "larger than 100000"),
        ("/classify", b"text=hello", {"content-type": "application/x-www-form-urlencoded"}, 415, "send application/json"),
        ("/classify_batch", b'{"texts": []}', JSON, 422, "1 to 8"),
        ("/classify_batch", json.dumps({"texts": ["a"] * 9}).encode(), JSON, 422, "1 to 8"),
        ("/classify_batch", b'{"texts": "a"}', JSON, 422, "valid array"),
        ("/classify_batch", b'{"texts": ["fine", ""]}', JSON, 422, "texts.1 is empty"),
        ("/classify_batch", b'{"texts": ["fine", 3]}', JSON, 422, "texts.1"),
        ("/classify_mail", b"", {"content-type": "message/rfc822"}, 422, "empty"),
        ("/classify_mail", b"X-Only: headers\n\n", {"content-type": "message/rfc822"}, 422, "empty"),
        ("/classify_mail", b"Subject: x", JSON, 415, "send message/rfc822"),
    ],
)
def test_bad_requests_get_a_sentence(
    client: TestClient, path: str, content: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    answer = client.post(path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["error"]


def test_an_error_never_repeats_the_text(client: TestClient) -> None:
    for body in ({"text": ["MARKER"]}, {"MARKERKEY" * 3: 1, "text": 5}, {"texts": ["MARKER", 1]}):
        answer = client.post("/classify", json=body)
        assert answer.status_code == 422
        assert "MARKER" not in answer.text


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text() | st.floats() | st.booleans(), st.lists).map(repr))
)
def test_nothing_gets_a_5xx(client: TestClient, body: Any) -> None:
    for path, kind in (
        ("/classify", "application/json"),
        ("/classify_batch", "application/json"),
        ("/classify_mail", "message/rfc822"),
    ):
        assert client.post(path, content=body, headers={"content-type": kind}).status_code < 500


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=200))
def test_every_text_that_json_can_hold_is_answered_or_refused(client: TestClient, text: str) -> None:
    answer = client.post("/classify", content=json.dumps({"text": text}).encode(), headers=JSON)
    assert answer.status_code in (200, 422)


def test_the_service_imports_nothing_of_the_floors_above() -> None:
    heavy = (
        "torch",
        "transformers",
        "prefect",
        "mlflow",
        "dvc",
        "pandas",
        "sklearn",
        "great_expectations",
        "evidently",
        "tasks",
        "flows",
    )
    code = f"import sys, service.app; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
