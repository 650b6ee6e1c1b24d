"""service/feedback.py over HTTP: a verdict is taken with the input that was answered, stored once, or refused aloud."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from anyio.to_thread import current_default_thread_limiter
from starlette.testclient import TestClient

from service.app import http
from service.config import Config
from service.feedback import Feedback
from service.journal import read, segments
from service.kinds.text_classification.serving import TextVerdict
from service.record import Scored
from service.refused import Refused
from service.release import Release
from tests.service.conftest import LOOPBACK

TEXT = "winner prize money"
RAW = (
    b"From a@b.invalid  Thu Aug 22 13:17:22 2002\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\n"
    b"Content-Type: text/html; charset=big5\n\n<p>prize money \xff\xfe</p>\n"
)


def stored(config: Config) -> list[dict[str, Any]]:
    return [record for path in segments(config.feedback) for record in read(path)]


def answered(client: TestClient, text: str = TEXT) -> str:
    return str(client.post("/classify", json={"text": text}).json()["id"])


def test_a_verdict_on_a_text_is_on_the_disk_before_it_is_confirmed(client: TestClient, config: Config) -> None:
    told = client.post("/classify", json={"text": TEXT}).json()
    given = client.post("/feedback", json={"id": told["id"], "label": "ham", "text": TEXT})
    assert given.status_code == 200
    assert given.json() == {"id": told["id"], "label": "ham", "known": False, "contradicts": []}
    (record,) = stored(config)
    assert (record["kind"], record["n"], record["id"], record["label"]) == ("feedback", 0, told["id"], "ham")
    assert (record["subject"], record["text"]) == ("", TEXT)
    assert record["answered"] | {"label": "spam", "release": told["release"]} == record["answered"]
    assert record["received"] == record["answered"]["time"] < record["time"]
    assert record["reviewer"].startswith("dev-")


def test_a_verdict_on_a_mail_brings_its_own_time(client: TestClient, config: Config) -> None:
    told = client.post("/classify_mail", content=RAW, headers={"content-type": "message/rfc822"}).json()
    verdict = {"id": told["id"], "label": "spam", "raw": base64.b64encode(RAW).decode()}
    assert client.post("/feedback", json=verdict).status_code == 200
    (record,) = stored(config)
    assert record["received"] == "2002-08-22T13:17:22+00:00"
    assert record["subject"] == "grüße"
    assert "prize money" in record["text"]


def test_a_long_mail_matches_though_it_was_cut(client: TestClient) -> None:
    raw = b"Subject: prize\n\n" + b"money free cash\n" * 1500
    told = client.post("/classify_mail", content=raw, headers={"content-type": "message/rfc822"}).json()
    verdict = {"id": told["id"], "label": "spam", "raw": base64.b64encode(raw).decode()}
    assert client.post("/feedback", json=verdict).status_code == 200


@pytest.mark.parametrize(("is_recorded", "status"), [(True, 200), (False, 409)])
def test_a_mail_matches_as_it_was_cut_then_whatever_the_limit_is_now(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, is_recorded: bool, status: int
) -> None:
    whole = Scored.record
    if not is_recorded:  # as the journal of an earlier version holds it: the limit of now is all there is

        def record(self: Scored, route: str, client: str) -> dict[str, Any]:
            return {name: value for name, value in whole(self, route, client).items() if name != "characters"}

        monkeypatch.setattr(Scored, "record", record)
    raw = b"Subject: prize\n\n" + b"money free cash\n" * 1500
    told = client.post("/classify_mail", content=raw, headers={"content-type": "message/rfc822"}).json()
    verdict = {"id": told["id"], "label": "spam", "raw": base64.b64encode(raw).decode()}
    limits = http.state.worker.swap.current.limits
    monkeypatch.setitem(limits, "characters", limits["characters"] // 2)
    assert client.post("/feedback", json=verdict).status_code == status
    monkeypatch.undo()
    assert client.post("/feedback", json=verdict).status_code == 200


def test_a_longer_text_that_begins_alike_is_another_one(client: TestClient) -> None:
    text = "prize " * 1666 + "cash"
    assert len(text) == http.state.worker.swap.current.limits["characters"]
    verdict = {"id": answered(client, text), "label": "spam", "text": text + " more"}
    assert client.post("/feedback", json=verdict).status_code == 409


def test_each_text_of_a_batch_has_an_id_of_its_own(client: TestClient) -> None:
    texts = ["winner prize", "kernel patch"]
    first, second = client.post("/classify_batch", json={"texts": texts}).json()
    assert client.post("/feedback", json={"id": first["id"], "label": "spam", "text": texts[1]}).status_code == 409
    assert client.post("/feedback", json={"id": second["id"], "label": "ham", "text": texts[1]}).status_code == 200


def test_the_same_verdict_twice_is_stored_once_and_another_one_says_so(client: TestClient, config: Config) -> None:
    verdict = {"id": answered(client), "label": "ham", "text": TEXT}
    assert client.post("/feedback", json=verdict).json()["known"] is False
    again = client.post("/feedback", json=verdict)
    assert (again.status_code, again.json()["known"]) == (200, True)
    other = TestClient(http, client=("127.0.0.2", 1)).post("/feedback", json=verdict | {"label": "spam"})
    assert (other.status_code, other.json()["contradicts"]) == (202, ["ham"])
    assert [record["label"] for record in stored(config)] == ["ham", "spam"]


def test_a_reviewer_corrects_himself_as_often_as_he_likes(client: TestClient, config: Config) -> None:
    verdict = {"id": answered(client), "text": TEXT}
    for label in ("ham", "spam", "ham"):
        said = client.post("/feedback", json=verdict | {"label": label})
        assert (said.status_code, said.json()["known"], said.json()["contradicts"]) == (200, False, [])
    assert [record["label"] for record in stored(config)] == ["ham", "spam", "ham"]


def test_what_another_worker_stored_is_known(config: Config) -> None:
    with TestClient(http, client=LOOPBACK) as client:
        verdict = {"id": answered(client), "label": "ham", "text": TEXT}
        assert client.post("/feedback", json=verdict).status_code == 200
    with TestClient(http, client=LOOPBACK) as client:  # a worker of its own, with the journal of the other
        assert client.post("/feedback", json=verdict).json()["known"] is True
        other = TestClient(http, client=("127.0.0.2", 1))
        assert other.post("/feedback", json=verdict | {"label": "spam"}).json()["contradicts"] == ["ham"]
    assert [record["label"] for record in stored(config)] == ["ham", "spam"]


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"text": TEXT + " "}, 409, "not the input"),
        ({"text": ""}, 409, "not the input"),
        ({"id": "20260101T000000000000Z-abcd-0"}, 404, "No answer"),
        ({"id": "../../salt"}, 404, "No answer"),
        ({"label": "eggs"}, 422, "none of ham, spam"),
        ({"label": 1}, 422, "label"),
        ({"raw": "QQ=="}, 422, "either"),
        ({"text": None}, 422, "either"),
        ({"text": None, "raw": "not base64!"}, 422, "not base64"),
        ({"text": None, "raw": "é"}, 422, "not base64"),
        ({"more": 1}, 422, '"id", "label"'),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused(
    client: TestClient, config: Config, change: dict[str, Any], status: int, says: str
) -> None:
    verdict = {"id": answered(client), "label": "ham", "text": TEXT} | change
    given = client.post("/feedback", json=verdict)
    assert given.status_code == status, given.text
    assert says in given.json()["error"]
    assert stored(config) == []


def test_what_cannot_be_stored_is_not_confirmed(client: TestClient, config: Config) -> None:
    verdict = {"id": answered(client), "label": "ham", "text": TEXT}
    assert client.post("/feedback", json=verdict).status_code == 200
    other = {"id": answered(client, "kernel patch"), "label": "ham", "text": "kernel patch"}
    shutil.rmtree(config.feedback)
    config.feedback.write_text("a file in its place")
    refused = client.post("/feedback", json=other)
    assert refused.status_code == 503
    assert "send it again" in refused.json()["error"]
    config.feedback.unlink()
    assert client.post("/feedback", json=other).json()["known"] is False
    assert [record["id"] for record in stored(config)] == [other["id"]]


def put_a_file(config: Config) -> Path:
    shutil.rmtree(config.feedback, ignore_errors=True)
    config.feedback.write_text("a file in its place")
    return config.feedback


def put_a_folder(config: Config) -> Path:
    place = config.feedback / "20260101T000000000000Z-abcd.log"
    place.mkdir(parents=True)
    return place


def put_a_folder_into_the_journal(config: Config) -> Path:
    (path,) = segments(config.journal)
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    return path


@pytest.mark.parametrize("put", [put_a_file, put_a_folder, put_a_folder_into_the_journal])
def test_why_feedback_is_refused_is_logged_once_an_episode(
    client: TestClient, config: Config, caplog: pytest.LogCaptureFixture, put: Callable[[Config], Path]
) -> None:
    verdict = {"id": answered(client), "label": "ham", "text": TEXT}
    assert http.state.worker.journal.flush()
    place = put(config)
    refused = [client.post("/feedback", json=verdict) for _ in range(3)]
    assert [entry.status_code for entry in refused] == [503] * 3
    assert "send it again" in refused[0].json()["error"]
    (line,) = [record for record in caplog.records if record.levelname == "ERROR" and record.name == "restill.feedback"]
    assert f"{place}: " in line.getMessage()
    assert "Is a directory" in line.getMessage() or "File exists" in line.getMessage()
    assert TEXT not in caplog.text
    place.unlink() if place.is_file() else place.rmdir()
    if place.with_suffix(".away").exists():
        place.with_suffix(".away").rename(place)
    assert client.post("/feedback", json=verdict).status_code == 200
    assert "this is over" in caplog.text


def test_a_disk_that_hangs_takes_no_thread_from_the_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    released, hanging = threading.Event(), threading.Semaphore(0)

    def give(*_: object) -> tuple[str, dict[str, Any]]:
        hanging.release()
        assert released.wait(60)
        return "stored", {}

    monkeypatch.setattr(Feedback, "give", give)
    assert client.portal is not None
    limiter = client.portal.call(current_default_thread_limiter)
    client.portal.call(setattr, limiter, "total_tokens", 2)
    verdict = {"id": "x", "label": "ham", "text": TEXT}
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(client.post, "/feedback", json=verdict) for _ in range(6)]
        try:
            assert all(hanging.acquire(timeout=20) for _ in range(2))
            mail = {"content": RAW, "headers": {"content-type": "message/rfc822"}}
            assert pool.submit(client.post, "/classify_mail", **mail).result(20).status_code == 200
        finally:
            released.set()
        assert [entry.result(20).status_code for entry in waiting] == [200] * 6


def test_nobody_waits_long_for_an_id_however_seldom_records_are_flushed(
    config: Config, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, served = [0.0], Release(release)

    def sleep(more: float) -> None:
        seconds[0] += more

    monkeypatch.setattr("service.feedback.time", SimpleNamespace(monotonic=lambda: seconds[0], sleep=sleep))
    config.journal.mkdir(parents=True)
    feedback = Feedback(config.feedback, config.journal, b"", flush_seconds=60)
    try:
        verdict = TextVerdict(id="20260101T000000000000Z-abcd-0", label="ham", text=TEXT)
        with pytest.raises(Refused, match="No answer"):
            feedback.give(verdict, served, "team")
    finally:
        feedback.close()
    assert 5 <= seconds[0] < 10


def test_a_full_disk_is_not_confirmed(client: TestClient, config: Config, tmp_path: Path) -> None:
    config.feedback.mkdir(exist_ok=True)
    size = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(config.feedback)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        verdict = {"id": answered(client), "label": "ham", "text": TEXT}
        filler = config.feedback / "filler"
        (config.feedback / ".lock").touch()
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        assert client.post("/feedback", json=verdict).status_code == 503
        filler.unlink()
        assert client.post("/feedback", json=verdict).json()["known"] is False
        assert len(stored(config)) == 1
    finally:
        subprocess.run(["umount", "-l", str(config.feedback)], check=True)


AWAY = """
import sys
from pathlib import Path
from service.journal import Journal
journal = Journal(Path(sys.argv[1]))
print(journal.append({"kind": "status", "time": "x"}))
journal.close()
"""


def test_only_an_answer_can_be_judged(client: TestClient, config: Config) -> None:
    run = subprocess.run([sys.executable, "-c", AWAY, str(config.journal)], capture_output=True, text=True, check=True)
    verdict = {"id": run.stdout.strip(), "label": "ham", "text": TEXT}
    assert client.post("/feedback", json=verdict).status_code == 404
