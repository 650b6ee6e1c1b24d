"""service/swap.py: a good release takes over between two requests, a bad one is refused with its reason."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import service.swap
import service.worker
from service.app import Restill, http
from service.config import Config, read_config
from service.store import read_pointer, release_folder
from service.swap import HotSwap
from tasks.release.package import seal
from tasks.release.store import add, promote, rollback
from tests.service.conftest import LOOPBACK


def another(release: Path, name: str) -> Path:
    """The same model as another release: its card has another name."""
    folder = release.with_name(f"made-{name}")
    shutil.copytree(release, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"name": name}))
    seal(folder)
    return folder


def point(store: Path, identity: str) -> None:
    before = read_pointer(store)
    promote(store, identity, expected=before.token if before else 0, who="test", why="test", gate=None)


def force(store: Path, pointer: dict[str, Any]) -> None:
    """Move the pointer to what the commands would not let it point to."""
    temporary = store / "pointer.tmp"
    temporary.write_text(json.dumps(pointer))
    temporary.replace(store / "pointer.json")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "var/store"


@pytest.fixture
def two(store: Path, release: Path) -> tuple[str, str]:
    """Two releases in the store, of which the first is the champion."""
    identities = add(store, another(release, "one")), add(store, another(release, "two"))
    point(store, identities[0])
    return identities


def spoil(store: Path, identity: str, how: Callable[[Path], None]) -> None:
    folder = release_folder(store, identity)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    how(folder)


def flip(folder: Path) -> None:
    data = bytearray((folder / "model/model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model/model.onnx").write_bytes(data)


def other_scores(folder: Path) -> None:
    """As a host would see it whose arithmetic differs: the files are whole, the probes' scores are not met."""
    probes = json.loads((folder / "probes.json").read_text())
    probes["probes"][0]["probabilities"].reverse()
    (folder / "probes.json").write_text(json.dumps(probes))
    seal(folder)


BAD = [
    (flip, "model/model.onnx was changed"),
    (lambda folder: (folder / "model/words.npz").unlink(), "model/words.npz is missing"),
    (lambda folder: (folder / "extra").write_text("x"), "extra is not listed"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
    (shutil.rmtree, "cannot be read"),
    (other_scores, "a probe's score differs"),
]


def test_a_promotion_and_a_rollback_are_followed(store: Path, two: tuple[str, str], release: Path) -> None:
    serving = HotSwap(store, release, None)
    assert serving.state() == {"release": two[0], "token": 1, "previous": None, "refused": None}
    first = serving.current
    point(store, two[1])
    serving.check()
    assert serving.state() == {"release": two[1], "token": 2, "previous": two[0], "refused": None}
    shutil.rmtree(release_folder(store, two[0]), ignore_errors=True)  # the one before needs no disk
    spoiled = release_folder(store, two[0])
    force(store, {"token": 3, "champion": two[0], "previous": two[1], "entry": {"action": "rollback"}})
    assert not spoiled.exists()
    serving.check()
    assert serving.current is first
    assert serving.state() == {"release": two[0], "token": 3, "previous": two[1], "refused": None}


@pytest.mark.parametrize(("how", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_release_is_refused_with_its_reason_and_the_old_one_goes_on(
    how: Callable[[Path], None],
    reason: str,
    store: Path,
    two: tuple[str, str],
    release: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    serving = HotSwap(store, release, None, lambda what, _: told.append(what))
    kept = serving.current
    backup = release.with_name("backup")
    shutil.copytree(release_folder(store, two[1]), backup)
    point(store, two[1])
    spoil(store, two[1], how)
    for _ in range(5):
        serving.check()
    assert serving.current is kept
    refused = serving.state()["refused"]
    assert refused["release"] == two[1]
    assert reason in refused["reason"] or "holds the release" in refused["reason"]
    assert str(store) not in refused["reason"], "it may be read by strangers"
    assert told == ["swapped", "refused"]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "said once, not every second"
    spoil(store, two[1], lambda folder: shutil.rmtree(folder, ignore_errors=True))
    shutil.copytree(backup, release_folder(store, two[1]))
    serving.check()
    assert serving.current is kept, "it is not loaded again every second"
    monkeypatch.setattr(service.swap, "RETRY_SECONDS", 0.0)
    serving._retry_at = 0.0
    serving.check()
    assert serving.state() == {"release": two[1], "token": 2, "previous": two[0], "refused": None}


def test_probe_scores_that_differ_on_this_host_are_the_reason(store: Path, two: tuple[str, str], release: Path) -> None:
    serving = HotSwap(store, release, None)
    strange = another(release, "strange")
    other_scores(strange)
    identity = json.loads((strange / "manifest.json").read_text())["id"]
    shutil.copytree(strange, release_folder(store, identity))
    point(store, identity)
    serving.check()
    refused = serving.state()["refused"]
    assert refused["release"] == identity
    assert "a probe's score differs by" in refused["reason"]
    assert serving.state()["release"] == two[0]


def test_a_pointer_that_cannot_be_read_changes_nothing(store: Path, two: tuple[str, str], release: Path) -> None:
    serving = HotSwap(store, release, None)
    whole = (store / "pointer.json").read_text()
    for broken in ("", "{", "[]", whole.replace(two[0], "../../../x"), whole.replace('"token": 1', '"token": -1')):
        (store / "pointer.json").write_text(broken)
        serving.check()
        assert serving.state()["release"] == two[0]
        assert serving.state()["refused"]["release"] == "pointer"
    (store / "pointer.json").write_text(whole)
    serving.check()
    assert serving.state()["refused"] is None


def test_another_change_of_the_pointer_is_tried_at_once(store: Path, two: tuple[str, str], release: Path) -> None:
    serving = HotSwap(store, release, None)
    third = add(store, another(release, "three"))
    point(store, two[1])
    spoil(store, two[1], flip)
    serving.check()
    assert serving.state()["refused"]
    point(store, third)
    serving.check()
    assert serving.state() == {"release": third, "token": 3, "previous": two[0], "refused": None}


@pytest.mark.parametrize("spoiled", [[], [1], [1, 0], [1, 0, "packed"]])
def test_at_the_start_the_next_best_stands_in(spoiled: list[Any], store: Path, two: tuple[str, str], release: Path) -> None:
    point(store, two[1])
    packed = json.loads((release / "manifest.json").read_text())["id"]
    for which in spoiled:
        if which == "packed":
            flip(release)
        else:
            spoil(store, two[which], flip)
    serving = HotSwap(store, release, None)
    assert serving.state()["release"] == [two[1], two[0], packed, None][len(spoiled)]
    assert (serving.state()["refused"] is None) == (not spoiled)


def test_a_fixed_release_is_served_or_nothing(store: Path, two: tuple[str, str], release: Path) -> None:
    serving = HotSwap(store, release, release)
    assert serving.state()["release"] not in two
    flip(release)
    with pytest.raises(service.swap.ReleaseError, match="was changed"):
        HotSwap(store, release, release)


@pytest.fixture
def swapping(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The service with a store to follow, looked at all the time."""
    variables = {"RESTILL_HOME": str(tmp_path / "var"), "RESTILL_DEV": "1", "RESTILL_POLL_SECONDS": "0.01"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RESTILL_RELEASE", raising=False)
    monkeypatch.setattr(service.worker, "PACKED", release)
    yield read_config(variables)


def wait_for(client: TestClient, identity: str) -> None:
    deadline = time.monotonic() + 60
    while client.get("/model").json()["release"] != identity:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_request_fails_and_none_is_answered_by_two_releases(swapping: Config, two: tuple[str, str]) -> None:
    stop = threading.Event()
    seen: list[tuple[int, set[str]]] = []

    def ask(client: TestClient) -> None:
        while not stop.is_set():
            answer = client.post("/classify_batch", json={"texts": ["winner prize", "kernel patch", "free money"]})
            seen.append((answer.status_code, {entry["release"] for entry in answer.json()}))

    with TestClient(http, client=LOOPBACK) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            point(swapping.store, two[1])
            wait_for(client, two[1])
            pointer = read_pointer(swapping.store)
            assert pointer is not None
            rollback(swapping.store, expected=pointer.token, who="test", why=f"test {pointer.token}")
            wait_for(client, two[0])
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    assert {len(releases) for _, releases in seen} == {1}
    assert {next(iter(releases)) for _, releases in seen} == set(two)


def test_what_is_served_and_refused_is_said_everywhere(swapping: Config, two: tuple[str, str]) -> None:
    with TestClient(Restill.to_asgi(is_main=True), client=LOOPBACK) as client:
        assert client.get("/readyz").json() == {
            "ready": True, "release": two[0], "token": 1, "previous": None, "refused": None,
        }  # fmt: skip
        assert f'restill_serving{{release="{two[0]}"}} 1.0' in client.get("/metrics").text
        spoil(swapping.store, two[1], flip)
        force(swapping.store, {"token": 2, "champion": two[1], "previous": two[0], "entry": {}})
        deadline = time.monotonic() + 30
        while client.get("/readyz").json()["refused"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["release"]) == (200, two[0])
        assert "was changed" in client.get("/model").json()["refused"]["reason"]
        assert "restill_refusing 1.0" in client.get("/metrics").text


def test_a_service_without_a_release_is_alive_not_ready_and_gets_ready(
    swapping: Config, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.worker, "PACKED", release.with_name("nowhere"))
    with TestClient(Restill.to_asgi(is_main=True), client=LOOPBACK) as client:
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.get("/model").status_code == 503
        refused = client.post("/classify", json={"text": "winner"})
        assert refused.status_code == 503
        assert "No release is served yet" in refused.json()["error"]
        identity = add(swapping.store, release)
        point(swapping.store, identity)
        wait_for(client, identity)
        assert client.get("/readyz").status_code == 200
        assert client.post("/classify", json={"text": "winner"}).json()["release"] == identity
