"""flows/supervisor.py: each workload with a champion has a service of its own, on a port that stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import supervisor
from flows.supervisor import configuration, ports, served
from service.store import POINTER
from tasks.stage import Paths


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTILL_HOME", str(tmp_path / "var"))
    (tmp_path / "params.yaml").write_text("workloads: [a, b, c]\n")
    (tmp_path / "supervisord.conf").write_text("[supervisord]\n")
    for name in ("a", "b", "c"):
        (tmp_path / "workloads" / name).mkdir(parents=True)
        (tmp_path / "workloads" / name / "params.yaml").write_text("{}\n")
    for name in ("a", "c"):
        store = tmp_path / "var" / name / "store"
        store.mkdir(parents=True)
        (store / POINTER).write_text(json.dumps({}))
    monkeypatch.setattr(supervisor, "bento", lambda paths: (f"restill-{paths.workload}:1", False))
    return tmp_path


def test_a_workload_without_a_champion_has_no_service_and_keeps_its_port(project: Path) -> None:
    assert [paths.workload for paths in served(project)] == ["a", "c"]
    assert ports(project, 3100) == {"a": 3100, "b": 3101, "c": 3102}
    text = configuration(project, 31000)
    assert "[program:service-b]" not in text
    assert "bentoml serve restill-a:1 --host 127.0.0.1 --port 31000" in text
    assert "bentoml serve restill-c:1 --host 127.0.0.1 --port 31002" in text
    assert 'RESTILL_WORKLOAD="c"' in text


def test_the_runtime_state_of_a_workload_is_its_own(project: Path) -> None:
    one, other = (Paths(project / "workloads" / name) for name in ("a", "b"))
    assert one.store == project / "var/a/store"
    assert other.journal == project / "var/b/journal"
    assert one.evidently == other.evidently == project / "var/evidently"
