"""service/access.py: who is let in, and that whoever cannot be checked is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.access import Access, KeysError, add, hash_key, read_keys, remove
from service.app import http
from service.config import Config
from service.refused import Refused
from tests.service.conftest import LOOPBACK

TEXT = {"text": "winner prize money"}


def refusal(access: Access, headers: dict[str, str], client: str | None = "203.0.113.7", scope: str = "classify") -> int:
    with pytest.raises(Refused) as caught:
        access.admit(headers, client, scope)
    assert caught.value.sentence.endswith((".", "`."))
    return caught.value.status


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_opens_its_scopes_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, both = add(path, "mailserver", ["classify"]), add(path, "team", ["classify", "feedback"])
    access = Access(path, dev=False, salt=b"")
    assert access.admit(bearer(key), "203.0.113.7", "classify") == "mailserver"
    assert access.admit({"x-api-key": both}, None, "feedback") == "team"
    assert access.admit({"authorization": f"bearer {both}"}, None, "classify") == "team"
    assert refusal(access, bearer(key), scope="feedback") == 403


@pytest.mark.parametrize("given", ["", "x", "restill_", " ", "é", "None", "Basic abc"])
def test_anything_else_is_refused(tmp_path: Path, given: str) -> None:
    path = tmp_path / "keys.json"
    key = add(path, "team", ["classify"])
    access = Access(path, dev=True, salt=b"")
    assert refusal(access, bearer(given), "127.0.0.1") == 401
    assert refusal(access, {"x-api-key": given}, "127.0.0.1") == 401
    assert refusal(access, {"authorization": key}, "127.0.0.1") == 401
    assert refusal(access, bearer(hash_key(key)), "127.0.0.1") == 401
    assert refusal(access, bearer(key[:-1]), "127.0.0.1") == 401


@pytest.mark.parametrize("content", [None, "[]"])
def test_without_a_key_set_everything_is_closed_and_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    access = Access(path, dev=False, salt=b"")
    for headers in ({}, bearer(""), bearer("None"), {"x-api-key": ""}):
        with pytest.raises(Refused, match=r"service\.access add") as caught:
            access.admit(headers, "127.0.0.1", "classify")
        assert caught.value.status == 401


def entry(**changes: object) -> str:
    return json.dumps([{"name": "a", "scopes": ["classify"], "hash": "0" * 64} | changes])


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "{}", '["x"]', '[{"name": "a"}]', entry(hash=None), entry(hash=""), entry(scopes=[]),
     entry(scopes=["all"]), entry(scopes="classify"), entry(name="a b\n"), entry(name=None), entry(more=1)],
)  # fmt: skip
def test_a_broken_file_closes_everything(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    key = add(path, "team", ["classify"])
    access = Access(path, dev=False, salt=b"")
    assert access.admit(bearer(key), None, "classify") == "team"
    path.write_text(content)
    assert refusal(access, bearer(key)) == 503
    assert refusal(access, {}) == 503
    with pytest.raises(KeysError, match=r"keys\.json"):
        read_keys(path)


def test_why_keys_cannot_be_read_is_logged_once_an_episode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    access = Access(path, dev=False, salt=b"")
    for content, reason in ((entry(hash="MARKER"), f"{path}: key 1: the hash is no SHA-256"), (None, "Is a directory")):
        path.write_text(content) if content else path.mkdir()
        assert [refusal(access, bearer("x")) for _ in range(3)] == [503] * 3
        (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert reason in line.getMessage()
        path.unlink() if content else path.rmdir()
        assert refusal(access, bearer("x")) == 401
        assert caplog.records[-1].levelname == "WARNING"
        assert "MARKER" not in caplog.text
        caplog.clear()


def test_a_folder_in_its_place_closes_everything(tmp_path: Path) -> None:
    (tmp_path / "keys.json").mkdir()
    assert refusal(Access(tmp_path / "keys.json", dev=False, salt=b""), bearer("x")) == 503


def test_keys_are_rotated_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    access = Access(path, dev=False, salt=b"")
    old = add(path, "old", ["classify"])
    assert access.admit(bearer(old), None, "classify") == "old"
    new = add(path, "new", ["classify"])
    assert [access.admit(bearer(key), None, "classify") for key in (old, new)] == ["old", "new"]
    remove(path, "old")
    assert refusal(access, bearer(old)) == 401
    assert access.admit(bearer(new), None, "classify") == "new"
    path.unlink()
    assert refusal(access, bearer(new)) == 401


def test_dev_mode_is_for_callers_on_this_machine_alone(tmp_path: Path) -> None:
    dev = Access(tmp_path / "keys.json", dev=True, salt=b"salt")
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        assert dev.admit({}, address, "feedback").startswith("dev-")
    assert dev.admit({}, "127.0.0.1", "classify") == dev.admit({}, "127.0.0.1", "feedback") != dev.admit({}, "::1", "classify")
    for address in ("203.0.113.7", "10.0.0.1", "localhost", "", None, "::ffff:203.0.113.7"):
        assert refusal(dev, {}, address) == 401
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "Origin"):
        assert refusal(dev, {header.lower(): "127.0.0.1"}, "127.0.0.1") == 401
    assert refusal(Access(tmp_path / "keys.json", dev=False, salt=b"salt"), {}, "127.0.0.1") == 401
    add(tmp_path / "keys.json", "proxy", ["classify"])
    assert refusal(dev, {}, "127.0.0.1") == 401, "whoever has made a key wants it asked for"


def test_the_file_holds_hashes_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "var/keys.json"
    key = add(path, "team", ["classify", "feedback"])
    assert key not in path.read_text()
    assert json.loads(path.read_text()) == [{"name": "team", "scopes": ["classify", "feedback"], "hash": hash_key(key)}]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeysError, match="there is a key of this name"):
        add(path, "team", ["classify"])
    with pytest.raises(KeysError, match="no such key; there are team"):
        remove(path, "teem")
    with pytest.raises(KeysError, match="1 to 40"):
        add(path, "a name\nwith a line", ["classify"])


def test_the_command_makes_lists_and_removes(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service.access", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"RESTILL_HOME": str(tmp_path)})

    key = run("add", "team", "--scope", "classify", "--scope", "feedback").stdout.strip()
    assert Access(tmp_path / "keys.json", False, b"").admit(bearer(key), None, "feedback") == "team"
    assert run("list").stdout == "team classify feedback\n"
    again = run("add", "team", "--scope", "classify")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "remove it first" in again.stderr
    assert run("add", "x", "--scope", "everything").returncode == 2
    assert run("remove", "team").returncode == 0
    assert run("list").stdout == ""


ROUTES = ["/classify", "/classify_batch", "/classify_mail", "/feedback"]


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_that_reads_a_text_is_behind_the_keys(path: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTILL_DEV", "0")
    feedback = path == "/feedback"
    mine, other = (
        add(config.keys, "mine", ["feedback" if feedback else "classify"]),
        add(config.keys, "other", ["classify" if feedback else "feedback"]),
    )
    with TestClient(http, client=LOOPBACK) as client:
        closed = client.post(path, content=b"{}")
        assert closed.status_code == 401
        assert closed.headers["www-authenticate"] == "Bearer"
        assert client.post(path, content=b"{}", headers=bearer(other)).status_code == 403
        assert client.post(path, content=b"{}", headers=bearer(mine)).status_code not in (401, 403)
        for open_to_all in ("/model", "/metrics"):
            assert client.get(open_to_all).status_code == 200
