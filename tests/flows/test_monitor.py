"""flows/monitor.py: judge, act, and only then tell people; what cannot be done ends, and what is for people stops nothing."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from flows import monitor
from service.store import read_pointer
from tasks.monitor import watch
from tasks.monitor.decide import Decision, decision_id
from tasks.monitor.state import Intent, State
from tasks.release.store import history
from tasks.stage import Paths
from tests.imports import MAIL
from tests.tasks.traffic import BEGIN, RELEASE, answers, install, settings, world, write

OTHER = "ba9876543210"
COUNT = settings()[0].windows.count


class Plain:
    """A task without its engine: what it does, and its name."""

    def __init__(self, task: Any) -> None:
        self.name, self._does = task.name, task.fn

    def __call__(self, *given: Any) -> Any:
        return self._does(*given)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A store with a champion, and a monitor that needs no server."""
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    for name in ("cut", "judge", "report", "publish", "roll_back", "start_restill"):
        monkeypatch.setattr(monitor, name, Plain(getattr(monitor, name)))
    monkeypatch.setattr(monitor, "get_run_logger", lambda: logging.getLogger("tests"))
    paths = Paths(tmp_path)
    install(paths)
    point(paths, OTHER)
    return paths


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What people are shown, in its order; nothing of it is really made."""
    found: list[str] = []
    monkeypatch.setattr(monitor, "report_window", lambda *given: found.append(f"report {given[-1].number}"))
    monkeypatch.setattr(monitor, "record", lambda root, seen, told: found.append(f"record {seen.number}"))
    monkeypatch.setattr(monitor, "create_markdown_artifact", lambda told, key, description: None)
    return found


def point(paths: Paths, previous: str | None, token: int = 4) -> None:
    entry = {"token": token, "action": "promote", "who": "tests", "why": "", "from": previous, "to": RELEASE}
    stored = {"token": token, "champion": RELEASE, "previous": previous, "entry": entry}
    (paths.store / "pointer.json").write_text(json.dumps(stored))


def send(paths: Paths, windows: int) -> None:
    write(paths.journal, answers(world(windows * COUNT, np.random.default_rng(5))))


def intend(paths: Paths, **facts: Any) -> Intent:
    """An open rollback, as a judgement leaves it."""
    state = State(paths.monitor / "state.db")
    send(paths, 1)
    (window,) = watch.cut(settings()[0], state, paths)
    decision = Decision(decision_id(window.id), "rollback", ("worse",), (), (), (), True)
    intent = state.judge(window, (), decision, BEGIN, **facts)
    assert intent is not None
    return intent


def judged(paths: Paths, news: list[bool]) -> None:
    """Windows that are judged already, and whether they are news."""
    state = State(paths.monitor / "state.db")
    send(paths, len(news))
    for window, new in zip(watch.cut(settings()[0], state, paths), news, strict=True):
        state.judge(window, (), Decision(decision_id(window.id), "investigate", ("why",), (), (), (), new), BEGIN)


def failing(kind: type[Exception]) -> Callable[..., None]:
    def fail(*given: Any, **named: Any) -> None:
        raise kind("no such luck")

    return fail


def test_what_is_for_people_comes_last_and_of_calm_windows_the_newest_once(paths: Paths, shown: list[str]) -> None:
    send(paths, 2)
    assert monitor.watch_traffic(paths, *settings()) == ["window 1: none", "window 2: none"]
    assert shown == ["report 2", "record 2"]
    assert monitor.watch_traffic(paths, *settings()) == []
    assert len(shown) == 2


def test_all_news_is_shown_and_so_much_in_one_run_that_judging_does_not_wait(paths: Paths, shown: list[str]) -> None:
    judged(paths, [True] * (monitor.SHOWN + 2) + [False, False])
    newest = monitor.SHOWN + 4
    monitor.watch_traffic(paths, *settings())
    assert [line for line in shown if line.startswith("report")] == [
        *(f"report {number}" for number in range(4, monitor.SHOWN + 3)),
        f"report {newest}",
    ]
    shown.clear()
    monitor.watch_traffic(paths, *settings())
    assert shown == ["report 1", "report 2", "report 3", "record 1", "record 2", "record 3"]


def test_of_many_windows_each_decision_is_told_once(paths: Paths, shown: list[str], caplog: pytest.LogCaptureFixture) -> None:
    send(paths, monitor.SAID + 1)
    with caplog.at_level(logging.INFO):
        (told,) = monitor.watch_traffic(paths, *settings())
    assert told == f"windows 1 to {monitor.SAID + 1}: {monitor.SAID + 1} none"
    assert f"windows 1 to {monitor.SAID + 1}: {monitor.SAID + 1} of {monitor.SAID + 1} calm" in caplog.messages


def test_tools_that_fail_cost_a_warning_and_are_made_up_for(
    paths: Paths, shown: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    point(paths, None)
    intend(paths, token=4)
    with monkeypatch.context() as broken:
        broken.setattr(monitor, "report_window", failing(KeyError))
        broken.setattr(monitor, "record", failing(OSError))
        (said,) = monitor.watch_traffic(paths, *settings())
    assert said.startswith("rollback failed"), "acted on all the same"
    warned = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "report of window 1 failed (KeyError); a later run tries again" in warned
    assert "publish of window 1 failed (OSError); a later run tries again" in warned
    monitor.watch_traffic(paths, *settings())
    assert shown == ["report 1", "record 1"]


def test_a_tool_that_is_down_is_not_asked_for_every_window(
    paths: Paths, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(paths, [True] * 6)
    tried: list[int] = []

    def down(*given: Any) -> None:
        tried.append(given[-1].number)
        raise ConnectionError

    monkeypatch.setattr(monitor, "report_window", down)
    monitor.watch_traffic(paths, *settings())
    assert tried == [1, 2, 3]
    assert shown == [f"record {number}" for number in range(1, 7)]


def test_a_rollback_is_fenced_by_the_token_of_its_judgement(paths: Paths, shown: list[str]) -> None:
    intent = intend(paths, champion=OTHER, token=3)
    (said,) = monitor.watch_traffic(paths, *settings())
    assert said.startswith("superseded: the pointer moved from token 3 to token 4")
    assert State(paths.monitor / "state.db").intent(intent.id).outcome == "superseded"
    pointer = read_pointer(paths.store)
    assert pointer is not None
    assert (pointer.token, pointer.champion) == (4, RELEASE), "nothing was changed"


def test_a_rollback_that_was_decided_without_a_token_undoes_nothing(paths: Paths, shown: list[str]) -> None:
    intend(paths)
    assert monitor.watch_traffic(paths, *settings())[0].startswith("superseded")


@pytest.mark.parametrize(("previous", "why"), [(None, "there is no previous release"), (OTHER, OTHER)])
def test_a_rollback_that_cannot_be_done_ends_and_the_rest_goes_on(
    paths: Paths, shown: list[str], caplog: pytest.LogCaptureFixture, previous: str | None, why: str
) -> None:
    """There is none to go back to, or it is not whole."""
    point(paths, previous)
    intent = intend(paths, champion=RELEASE, token=4)
    State(paths.monitor / "state.db").ask("new labels", BEGIN)
    rolled, restilled = monitor.watch_traffic(paths, *settings())
    assert rolled.startswith("rollback failed")
    assert "is written" in restilled, "and the restill is started"
    ended = State(paths.monitor / "state.db").intent(intent.id)
    assert ended.outcome == "failed"
    assert why in ended.facts["error"]
    assert "rollback of intent-1 failed" in caplog.text
    assert [entry["token"] for entry in history(paths.store)] == [4]
    assert monitor.watch_traffic(paths, *settings()) == [restilled]


def test_a_misspelt_block_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params["decide"]["weights"] = {"label_mx": 60}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["monitor"])
    with pytest.raises(SystemExit) as ended:
        monitor.main()
    assert str(ended.value.code).startswith("monitor: params.yaml: decide.weights = {'label_mx': 60}: ")
    assert "\n" not in str(ended.value.code)
