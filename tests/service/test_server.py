"""The service as its users run it: BentoML, two workers, keys; and that no text is left where it does not belong."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.access import add
from service.journal import read, segments
from tests.service.serving import Server, serving

MARKER = "zebrafinch"
"""Planted in every request; nobody else says it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, students: tuple[Path, Path]) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    key = add(folder / "var/keys.json", "test", ["classify", "feedback"])
    with serving(students[1], folder, key, {"RESTILL_WORKERS": "2", "RESTILL_STATUS_SECONDS": "0.3"}) as served:
        deadline = time.monotonic() + 60
        while len(served.pids()) < 2:
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.1)
        yield served


def everything_written(server: Server) -> dict[str, bytes]:
    places = (server.home, server.bento_home, *server.counts())
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in [*files, server.log]}


def test_a_planted_word_is_in_the_feedback_and_nowhere_else(server: Server) -> None:
    text = f"winner {MARKER} prize"
    raw = f"Subject: {MARKER}\nFrom: {MARKER}@example.invalid\n\n{text}\n".encode()
    mail = {"content-type": "message/rfc822"}
    post = server.client.post
    one = post("/classify", json={"text": text})
    many = post("/classify_batch", json={"texts": [text, text + " again"]})
    third = post("/classify_mail", content=raw, headers=mail)
    assert [entry.status_code for entry in (one, many, third)] == [200, 200, 200]
    verdict = {"id": one.json()["id"], "label": "spam", "text": text}
    good = [
        post("/feedback", json=verdict),
        post("/feedback", json={"id": third.json()["id"], "label": "ham", "raw": base64.b64encode(raw).decode()}),
        post("/feedback", json=verdict | {"label": "ham"}),  # he corrects himself
    ]
    assert [entry.status_code for entry in good] == [200, 200, 200]
    bad = [
        post(path, **what)
        for path in ("/classify", "/classify_batch", "/classify_mail", "/feedback", f"/{MARKER}")
        for what in (
            {"content": text.encode(), "headers": {"content-type": "application/json"}},
            {"json": {MARKER: text}},
            {"json": {"text": [text], "texts": text, "id": MARKER, "label": MARKER}},
            {"json": {"id": MARKER, "label": MARKER, "text": text}},
            {"json": {"id": verdict["id"], "label": "spam", "text": f"{text} {MARKER}"}},
            {"content": text.encode(), "headers": {"content-type": f"text/{MARKER}"}},
            {"content": (text * 100_000).encode(), "headers": mail},
            {"json": {"text": text}, "headers": {"authorization": f"Bearer {MARKER}"}},
            {"json": {"text": text}, "headers": {"authorization": "", "x-api-key": MARKER, "x-forwarded-for": MARKER}},
            {"json": {"text": "fine"}, "headers": {"user-agent": MARKER, "cookie": MARKER}, "params": {"text": MARKER}},
        )
    ]
    bad += [server.client.get("/classify", params={"text": MARKER}), server.client.request("PATCH", f"/model/{MARKER}")]
    assert all(entry.status_code < 500 for entry in bad)
    answers = [one, many, third, *good, *bad, *(server.client.get(path) for path in ("/metrics", "/model", "/readyz"))]
    for answer in answers:
        allowed = f"text/{MARKER}".encode() if answer.status_code == 415 else b"\0"  # a media type is repeated to its sender
        assert MARKER.encode() not in answer.content.replace(allowed, b"") + str(answer.headers).encode(), answer.request.url
    time.sleep(0.5)
    written = everything_written(server)
    found = {name for name, content in written.items() if MARKER.encode() in content}
    assert found
    assert {Path(name).parent.name for name in found} == {"feedback"}
    assert not [name for name, content in written.items() if server.key.encode() in content]
    assert "restill_requests_total" in answers[-3].text
    assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no memory that can be written as files here")
def test_counts_lie_in_memory_since_a_full_disk_kills_who_maps_its_files(server: Server) -> None:
    (counts,) = server.counts()
    assert counts.parent == Path("/dev/shm")
    assert len(list(counts.glob("counter_*.db"))) >= 2
    assert not list(server.bento_home.rglob("*.db"))


def test_an_id_of_one_worker_is_known_to_the_other(server: Server) -> None:
    texts = [f"winner prize {number}" for number in range(40)]
    told = [
        httpx.post(server.client.base_url.join("/classify"), json={"text": text}, headers=dict(server.client.headers)).json()
        for text in texts
    ]
    assert len({entry["id"].rpartition("-")[0] for entry in told}) == 2, "each worker has a segment of its own"
    for entry, text in zip(told, texts, strict=True):
        given = httpx.post(
            server.client.base_url.join("/feedback"),
            json={"id": entry["id"], "label": "spam", "text": text},
            headers=dict(server.client.headers),
        )
        assert given.status_code == 200, given.text


def test_a_killed_worker_is_replaced_and_its_answers_stay(server: Server) -> None:
    told = [server.client.post("/classify", json={"text": f"winner {number}"}).json()["id"] for number in range(20)]
    time.sleep(0.3)
    before = server.pids()
    os.kill(min(before), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not server.pids() - before:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)
    for _ in range(20):
        try:
            assert server.client.get("/readyz").status_code == 200
        except httpx.TransportError:  # a connection to the killed worker
            continue
    written = [record for path in segments(server.home / "journal") for record in read(path)]
    assert set(told) <= {record.get("id") for record in written}
    text = server.client.get("/metrics").text
    (serving,) = [line for line in text.splitlines() if line.startswith("restill_serving{")]
    assert json.loads(serving.split()[-1].replace(".0", "")) == 2, "the dead one is not counted"
