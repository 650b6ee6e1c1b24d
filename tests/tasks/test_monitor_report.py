"""tasks/monitor/watch.py and report.py: a calm and a drifted stream through all parts, and the report of a window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evidently.ui.workspace import Workspace

from tasks.monitor import watch
from tasks.monitor.report import PROJECT, report_window
from tasks.monitor.state import State
from tasks.stage import Paths, StageError
from tests.tasks.traffic import RELEASE, answers, feedback, install, settings, world, write

COUNT = settings()[0].windows.count


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    paths = Paths(tmp_path)
    install(paths)
    return paths


def stream(paths: Paths, windows: int, changed: int = 0, *, wrong_from: int | None = None) -> list[watch.Judgement]:
    """Journal, cut and judge calm windows and then ``changed`` ones of another world; every message is labelled."""
    monitor, policy = settings()
    chance = np.random.default_rng(5)
    parts = [world(COUNT, chance) for _ in range(windows)]
    parts += [world(COUNT, chance, spam=0.7, moved=0.5) for _ in range(changed)]
    records = [r for number, part in enumerate(parts) for r in answers(part, start=number * COUNT)]
    truth = [int(label) for part in parts for label in part["label_ids"]]
    if wrong_from is not None:
        truth[wrong_from * COUNT :] = [1 - label for label in truth[wrong_from * COUNT :]]
    write(paths.journal, records)
    write(paths.feedback, feedback(records, truth), worker=1)
    state = State(paths.monitor / "state.db")
    watch.cut(monitor, state, paths)
    return [watch.judge(monitor, policy, state, paths, window) for window in state.unjudged()]


def test_calm_windows_are_left_alone(paths: Paths) -> None:
    judged = stream(paths, 10)
    assert [j.decision.action for j in judged] == ["none"] * 10
    assert {signal.windows for signal in judged[-1].signals} >= {1, 2, 4, 8}
    assert State(paths.monitor / "state.db").open_intent() is None


def test_a_drifted_world_is_restilled_once(paths: Paths) -> None:
    judged = stream(paths, 6, 4)
    actions = [j.decision.action for j in judged]
    assert actions[:7] == ["none"] * 7
    assert actions[7] == "restill"
    assert set(actions[8:]) <= {"none", "investigate"}
    state = State(paths.monitor / "state.db")
    assert len(state.attempts()) == 1
    assert judged[7].intent == state.open_intent("restill")


def test_a_release_that_errs_is_restilled_though_nothing_else_moved(paths: Paths) -> None:
    """The answers look as ever; the reviewers say that they are wrong from the fifth window on."""
    actions = [j.decision.action for j in stream(paths, 7, wrong_from=4)]
    assert actions[:5] == ["none"] * 5
    assert "restill" in actions[5:]


def test_a_window_judged_again_keeps_its_judgement(paths: Paths) -> None:
    monitor, policy = settings()
    (first, *_) = stream(paths, 2)
    state = State(paths.monitor / "state.db")
    assert watch.judge(monitor, policy, state, paths, first.window) == first


def test_records_that_retention_took_are_not_merged(paths: Paths) -> None:
    monitor, policy = settings()
    stream(paths, 3)
    chance = np.random.default_rng(9)
    for old in paths.journal.iterdir():
        old.unlink()
    write(paths.journal, answers(world(COUNT, chance)), worker=2)
    state = State(paths.monitor / "state.db")
    watch.cut(monitor, state, paths)
    (window,) = state.unjudged()
    judged = watch.judge(monitor, policy, state, paths, window)
    assert {signal.windows for signal in judged.signals if signal.kind == "drift"} == {1}


def test_a_release_that_is_not_in_the_store_is_named(paths: Paths) -> None:
    (paths.store / "releases" / RELEASE / "reference.npz").unlink()
    with pytest.raises(StageError, match="the release's reference cannot be read"):
        stream(paths, 1)


def test_the_report_is_a_page_a_file_and_a_run_each_once(paths: Paths) -> None:
    monitor, _ = settings()
    judged = stream(paths, 1, 3)
    state = State(paths.monitor / "state.db")
    for _ in range(2):
        page = report_window(monitor, state, paths, judged[-1].window)
    assert page is not None
    assert page.stat().st_size > 100_000
    report = json.loads(page.with_suffix(".json").read_text())
    assert "unknown_word_share" in report["drifted"]
    assert report["method"] == monitor.report.method
    opened = Workspace.create(str(paths.evidently))
    (project,) = opened.search_project(PROJECT)
    assert len(opened.list_runs(project.id)) == 1


def test_only_the_newest_reports_are_kept(paths: Paths) -> None:
    monitor, _ = settings()
    monitor = monitor.model_copy(update={"report": monitor.report.model_copy(update={"keep": 2})})
    state_windows = [judged.window for judged in stream(paths, 3)]
    state = State(paths.monitor / "state.db")
    for window in state_windows:
        report_window(monitor, state, paths, window)
    kept = sorted(path.name for path in (paths.monitor / "reports").glob("window-*"))
    assert kept == ["window-000002.html", "window-000002.json", "window-000003.html", "window-000003.json"]
    opened = Workspace.create(str(paths.evidently))
    assert len(opened.list_runs(opened.search_project(PROJECT)[0].id)) == 2
