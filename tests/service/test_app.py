"""service/app.py over HTTP: good requests get answers, bad ones a 4xx with a sentence, and nothing gets a 5xx."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.app import Restill, http
from service.config import Config
from service.journal import read, segments
from service.kinds.text_classification.descriptors import NAMES
from service.release import Release, verify
from tests.service.conftest import LOOPBACK

JSON = {"content-type": "application/json"}


def test_one_text_many_texts_and_a_mail(client: TestClient) -> None:
    identity = client.get("/model").json()["release"]
    one = client.post("/classify", json={"text": "winner prize money free cash"})
    assert one.status_code == 200
    assert one.json() == {"label": "spam", "score": one.json()["score"], "release": identity, "id": one.json()["id"]}
    many = client.post("/classify_batch", json={"texts": ["winner prize money free cash", "kernel patch review"]}).json()
    assert [entry["label"] for entry in many] == ["spam", "ham"]
    assert many[0]["score"] == pytest.approx(one.json()["score"], abs=0.02)
    raw = b"Subject: winner\nContent-Type: text/html\n\n<p>prize money free cash</p>"
    mail = client.post("/classify_mail", content=raw, headers={"content-type": "message/rfc822"}).json()
    assert mail["label"] == "spam"


def test_the_model_card_names_the_release(client: TestClient, release: Path) -> None:
    card = client.get("/model").json()
    assert card["release"] == verify(release)
    assert card["refused"] is None
    assert card["labels"] == ["ham", "spam"]


BAD = [
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
    ("/classify", b'{"text": "<br><p></p>"}', JSON, 422, "nothing that can be read"),
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
    ("/classify_mail", b"Subject: x", JSON, 415, "send message/rfc822 or message/global"),
    ("/classify_mail", b" \r\n\r\n", {"content-type": "message/rfc822"}, 422, "empty"),
    ("/classify_mail", b"Subject: x\n\n" + b"x" * 100_001, {"content-type": "message/rfc822"}, 413, "larger than 100000"),
    ("/classify", b'{"text": "a\x00b"}', JSON, 400, "not JSON"),
    ("/classify", b'\x00{"text": "a"}', JSON, 400, "UTF-16"),
    ("/classify", b'{"text": "\\udc00\\ud800"}', JSON, 400, "not JSON in UTF-8"),
    ("/classify", b'{"text": "\xed\xa0\x80"}', JSON, 400, "not JSON in UTF-8"),
    ("/classify", b'{"text": "\xe4"}', JSON, 400, "not JSON in UTF-8"),
    ("/classify", '{"text": "a"}'.encode("utf-16"), JSON, 400, "UTF-16"),
    ("/classify", '{"text": "a"}'.encode("utf-16-be"), JSON, 400, "UTF-16"),
    ("/classify", '{"text": "a"}'.encode("utf-32"), JSON, 400, "UTF-32"),
    ("/classify", '{"text": "a"}'.encode("utf-32-le"), JSON, 400, "UTF-32"),
    ("/classify", b"\xef\xbb\xbf", JSON, 400, "not JSON"),
    ("/classify", b'\xef\xbb\xbf\xef\xbb\xbf{"text": "a"}', JSON, 400, "not JSON"),
    ("/classify", b'{"text":' * 12_000, JSON, 400, "not JSON"),
    ("/classify", b'{"text": NaN}', JSON, 400, "no JSON numbers"),
    ("/classify", b'{"text": "a", "more": [{"b": -Infinity}]}', JSON, 400, "no JSON numbers"),
    ("/classify", b'{"text": 1e400}', JSON, 422, "valid string"),
    ("/classify", b'{"text": -' + b"9" * 90_000 + b"}", JSON, 400, "not JSON"),
    ("/classify", b'{"text": ' + b"9" * 4_000 + b"}", JSON, 422, "valid string"),
    ("/classify", b'{"text": 0.' + b"9" * 90_000 + b"}", JSON, 422, "valid string"),
    ("/classify", b'{"text": "MARKER", "text": "MARKER"}', JSON, 400, "twice"),
    ("/classify", b'{"text": "MARKER", "te\\u0078t": "a"}', JSON, 400, "twice"),
    ("/classify", b'{"MARKER": 1, "MARKER": 2, "text": "a"}', JSON, 400, "twice"),
    ("/classify", b'"MARKER"', JSON, 422, "object"),
    ("/classify", b"null", JSON, 422, "object"),
    ("/classify", b'{"text": "a"} {"text": "MARKER"}', JSON, 400, "not JSON"),
    ("/classify", b"{'text': 'MARKER'}", JSON, 400, "not JSON"),
    ("/classify", b'{"text": "a",}', JSON, 400, "not JSON"),
    ("/classify", b"{}", {"content-type": "application/problem+json"}, 415, "send application/json"),
    ("/classify", b"{}", {"content-type": "text/json"}, 415, "send application/json"),
    ("/classify", b"{}", {"content-type": "application/json, text/plain"}, 415, "send application/json"),
    ("/classify", b"{}", {"content-type": "application/json; charset=latin-1"}, 415, "utf-8"),
    ("/classify", b"{}", {"content-type": 'application/json;x=1; Charset="UTF-16"'}, 415, "utf-8"),
    ("/classify", b"{}", {"content-type": "application/json; charset"}, 415, "utf-8"),
    ("/classify_mail", b"Subject: x", {"content-type": "message/partial"}, 415, "send message/rfc822"),
    ("/classify_mail", b"Subject: x", {"content-type": "text/plain"}, 415, "send message/rfc822"),
]
"""Path, body, headers, the status they get and what the sentence says."""


def test_bad_requests_get_a_sentence(client: TestClient) -> None:
    for path, content, headers, status, says in BAD:
        answer = client.post(path, content=content, headers=headers)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), (path, content[:80], answer.text)
        assert says in answer.json()["error"]
        assert answer.text.endswith('."}')
        assert "MARKER" not in answer.text


def test_json_is_known_by_its_media_type_and_may_have_a_byte_order_mark(client: TestClient) -> None:
    utf8 = ["application/json; charset=utf-8", 'application/json ;x=1;Charset="UTF-8"', "application/json;"]
    for kind in ("", "application/json", "APPLICATION/JSON", *utf8):
        for mark in (b"", b"\xef\xbb\xbf"):
            body = mark + b'{"text": "winner \\u0000 \\ud83d\\ude00 prize"}'
            answer = client.post("/classify", content=body, headers={"content-type": kind} if kind else {})
            assert answer.status_code == 200, (kind, answer.text)


def test_a_mail_is_known_by_its_media_type(client: TestClient) -> None:
    raw = "Subject: winner prize für alle\n\nmoney".encode()
    for kind in ("", "message/rfc822", "Message/RFC822; charset=iso-8859-1", "message/global", "message/global;x"):
        answer = client.post("/classify_mail", content=raw, headers={"content-type": kind} if kind else {})
        assert answer.json()["label"] == "spam", kind


def test_a_mail_whose_text_is_too_long_is_cut_as_it_is_in_training(client: TestClient) -> None:
    raw = b"Subject: winner prize\n\n" + b"money cash " * 2000
    assert client.post("/classify_mail", content=raw, headers={"content-type": "message/rfc822"}).status_code == 200


def test_a_path_or_a_method_that_is_not_there_gets_a_sentence_too(client: TestClient) -> None:
    for method, path, status, says in (
        ("GET", "/MARKER", 404, "no such route"),
        ("POST", "/classify/MARKER", 404, "no such route"),
        ("MARKER", "/classify", 405, "does not take this method"),
    ):
        answer = client.request(method, path, params={"text": "MARKER"})
        assert answer.status_code == status
        assert says in answer.json()["error"]
        assert "MARKER" not in answer.text + str(answer.headers)
    assert answer.headers["allow"] == "OPTIONS, POST"


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


def records(folder: Path) -> list[dict[str, Any]]:
    return [record for path in segments(folder) for record in read(path)]


def test_every_answered_text_leaves_one_record_and_a_refused_one_none(
    client: TestClient, config: Config, release: Path
) -> None:
    told = [client.post("/classify", json={"text": "winner prize"}).json()]
    told += client.post("/classify_batch", json={"texts": ["kernel patch", "free <b>money</b> " * 500]}).json()
    mail = b"Subject: winner\n\nprize money"
    told.append(client.post("/classify_mail", content=mail, headers={"content-type": "message/rfc822"}).json())
    client.post("/classify_batch", json={"texts": ["fine", ""]})
    assert http.state.worker.journal.flush()
    written = records(config.journal)
    assert [record["id"] for record in written] == [entry["id"] for entry in told]
    assert [record["n"] for record in written] == [0, 1, 2, 3]
    assert [record["route"] for record in written] == ["/classify", "/classify_batch", "/classify_batch", "/classify_mail"]
    for record, entry in zip(written, told, strict=True):
        assert {name: record[name] for name in ("label", "score", "release")} == {
            name: entry[name] for name in ("label", "score", "release")
        }
        assert set(record["descriptors"]) == set(NAMES)
        assert sum(record["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert record["latency_us"] > 0
        assert record["client"].startswith("dev-")
        assert len(record["hash"]) == 32
    assert [record["truncated"] for record in written] == [False, False, True, False]
    assert len(written[0]["features"]) == len(Release(release).predict(["x"])[2][0])


def test_a_status_record_says_what_was_refused_and_how_long_it_took(client: TestClient, config: Config) -> None:
    client.post("/classify", json={"text": "winner prize"})
    client.post("/classify", json={"text": " "})
    client.post("/classify", content=b"{", headers=JSON)
    client.post("/classify", json={"text": "a"}, headers={"authorization": "Bearer wrong"})
    client.get("/classify")
    client.__exit__(None, None, None)
    status = records(config.journal)[-1]
    assert status["kind"] == "status"
    assert (status["requests"], status["empty"], status["errors"], status["lost"]) == (5, 1, 0, 0)
    assert status["refused"] == {"400": 1, "401": 1, "405": 1, "422": 1}
    assert status["seconds"] > 0
    assert status["rss_bytes"] > 10_000_000


def test_a_mistake_of_ours_is_a_500_and_one_line_without_the_text(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Release, text: str) -> str:
        raise ValueError(f"cannot do {text}")

    monkeypatch.setattr(Release, "preprocess", broken)
    answer = client.post("/classify", json={"text": "MARKER"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "The service made a mistake."}
    assert "ValueError in broken" in caplog.text
    assert "MARKER" not in caplog.text + answer.text
    assert http.state.worker.meters.status("")["errors"] == 1


def test_the_service_answers_where_its_home_cannot_be_written(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RESTILL_HOME", str(tmp_path / "file/var"))
    monkeypatch.setenv("RESTILL_DEV", "1")
    monkeypatch.setenv("RESTILL_RELEASE", str(release))
    with TestClient(http, client=LOOPBACK) as opened:
        told = opened.post("/classify", json={"text": "winner prize"})
        assert told.status_code == 200
        verdict = {"id": told.json()["id"], "label": "spam", "text": "winner prize"}
        assert opened.post("/feedback", json=verdict).status_code == 503
        assert opened.get("/model").status_code == 200


def test_every_route_of_its_own_is_on_the_first_page_and_no_page_calls_abroad(client: TestClient) -> None:
    with TestClient(Restill.to_asgi(is_main=True), client=LOOPBACK) as whole:
        page = whole.get("/")
        assert set(page.json()["routes"]) >= {
            "/classify",
            "/classify_batch",
            "/classify_mail",
            "/feedback",
            "/model",
            "/metrics",
        }
        assert whole.get("/readyz").json()["ready"] is True
        assert whole.get("/livez").status_code == 200
        assert 'restill_serving{release="' in whole.get("/metrics").text
