"""tasks/monitor/watch.py, report.py, record.py: calm and drifted streams through all parts, and what people see of a window."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import numpy as np
import pytest
from evidently.ui.workspace import Workspace

from service.store import Pointer
from tasks.monitor import watch
from tasks.monitor.decide import JudgedWindow
from tasks.monitor.record import experiment, record
from tasks.monitor.report import report_window
from tasks.monitor.signals import Signal
from tasks.monitor.state import State
from tasks.stage import Paths
from tests.tasks.traffic import RELEASE, answers, at, feedback, installed, settings, world, write

COUNT = settings()[0].windows.count
OTHER = "ba9876543210"
"""Another release."""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    return installed(tmp_path, monkeypatch)


def stream(paths: Paths, windows: int, changed: int = 0, *, wrong_from: int | None = None) -> list[watch.Judgement]:
    """Journal, cut and judge calm windows and then ``changed`` ones of another world; every message is labelled."""
    rng = np.random.default_rng(5)
    parts = [world(COUNT, rng) for _ in range(windows)]
    parts += [world(COUNT, rng, spam=0.7, moved=0.5) for _ in range(changed)]
    records = [r for number, part in enumerate(parts) for r in answers(part, start=number * COUNT)]
    truth = [int(label) for part in parts for label in part["label_ids"]]
    if wrong_from is not None:
        truth[wrong_from * COUNT :] = [1 - label for label in truth[wrong_from * COUNT :]]
    return judge_all(paths, records, truth)


def judge_all(paths: Paths, records: list[dict[str, Any]], truth: list[int], worker: int = 0) -> list[watch.Judgement]:
    monitor, policy = settings()
    write(paths.journal, records, worker)
    if truth:
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
    rng = np.random.default_rng(9)
    for old in paths.journal.iterdir():
        old.unlink()
    write(paths.journal, answers(world(COUNT, rng)), worker=2)
    state = State(paths.monitor / "state.db")
    watch.cut(monitor, state, paths)
    (window,) = state.unjudged()
    judged = watch.judge(monitor, policy, state, paths, window)
    assert {signal.windows for signal in judged.signals if signal.kind == "drift"} == {1}


def test_a_lost_record_does_not_cut_the_memory(paths: Paths) -> None:
    """A window that was cut with a gap in its numbers is as whole as it ever was."""
    records = answers(world(2 * COUNT + 1, np.random.default_rng(5)))
    del records[7]
    first, second = judge_all(paths, records, [])
    assert first.window.plan.lost == 1
    assert {signal.windows for signal in second.signals if signal.kind == "drift"} == {1, 2}


def test_a_window_that_cannot_be_compared_is_for_people_and_the_next_is_judged(paths: Paths) -> None:
    rng = np.random.default_rng(5)
    unheard, known = (answers(world(COUNT, rng), start=n * COUNT, release=r) for n, r in enumerate((OTHER, RELEASE)))
    down = {"kind": "status", "requests": 60, "errors": 60, "empty": 0, "lost": 0, "rss_bytes": 1, "pid": 1}
    (nothing,) = judge_all(paths, [down | {"n": 0, "time": at(-86_400), "release": ""}], [])
    first, second = judge_all(paths, [*unheard, *known], [], worker=2)
    assert nothing.window.plan.release == "", "failures while nothing is served"
    assert [j.decision.action for j in (nothing, first, second)] == ["investigate", "investigate", "none"]
    assert nothing.decision.reasons == ("no release was served", "errors 1 is over its limit 0.02")
    assert first.decision.reasons == (f"release {OTHER} is not in the store",)
    assert {signal.kind for signal in first.signals} == {"health", "trust"}
    assert {signal.kind for signal in second.signals} >= {"drift", "health"}
    assert report_window(settings()[0], State(paths.monitor / "state.db"), paths, first.window) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", None])
def test_a_reference_that_cannot_be_read_stops_nothing(paths: Paths, content: bytes | None) -> None:
    path = paths.store / "releases" / RELEASE / "reference.npz"
    if content is None:
        np.savez(path, names=np.array([]))
    else:
        path.write_bytes(content)
    (judged,) = stream(paths, 1)
    assert judged.decision.action == "investigate"
    assert "the release's reference cannot be read" in judged.decision.reasons[0]


def promoted(paths: Paths, token: int, champion: str, previous: str, action: str = "promote") -> Pointer:
    """A pointer as the store writes it."""
    stored = {"token": token, "champion": champion, "previous": previous, "entry": {"token": token, "action": action}}
    (paths.store / "pointer.json").write_text(json.dumps(stored))
    return Pointer(token, champion, previous, {"token": token, "action": action})


def test_what_a_rollback_would_bring_back(paths: Paths) -> None:
    assert watch.previous_release(promoted(paths, 2, OTHER, RELEASE), OTHER) == RELEASE
    assert watch.previous_release(promoted(paths, 2, OTHER, RELEASE), RELEASE) is None
    assert watch.previous_release(promoted(paths, 2, OTHER, RELEASE, "rollback"), OTHER) is None
    assert watch.previous_release(None, OTHER) is None


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
    (project,) = opened.search_project("restill")
    assert len(opened.list_runs(project.id)) == 1


def test_a_column_that_is_always_the_same_costs_no_warning(paths: Paths) -> None:
    """No message hides text, as is usual: Evidently correlates that column too."""
    records = [
        r | {"descriptors": r["descriptors"] | {"hidden_share": 0.0}} for r in answers(world(COUNT, np.random.default_rng(5)))
    ]
    (judged,) = judge_all(paths, records, [])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        page = report_window(settings()[0], State(paths.monitor / "state.db"), paths, judged.window)
    assert page is not None


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
    assert len(opened.list_runs(opened.search_project("restill")[0].id)) == 2


def test_what_a_killed_report_left_is_written_over_or_taken_away(paths: Paths) -> None:
    monitor, _ = settings()
    (judged,) = stream(paths, 1)
    state = State(paths.monitor / "state.db")
    report_window(monitor, state, paths, judged.window)
    (run,) = paths.evidently.glob("*/snapshots/*.json")
    whole = run.read_text()
    run.write_text(whole[:1000])
    run.with_name(f"{uuid4()}.json").write_text(whole)  # of a version that gave each try a name of its own
    report_window(monitor, state, paths, judged.window)
    assert list(run.parent.iterdir()) == [run]
    opened = Workspace.create(str(paths.evidently))
    (project,) = opened.search_project("restill")
    found = opened.get_run(project.id, opened.list_runs(project.id)[0])
    assert found is not None
    assert found.name == "window-000001"


def test_a_report_reads_no_run_of_the_windows_before(paths: Paths) -> None:
    """A run is half a megabyte, and two hundred are kept."""
    monitor, _ = settings()
    first, second = stream(paths, 2)
    state = State(paths.monitor / "state.db")
    report_window(monitor, state, paths, first.window)
    (run,) = paths.evidently.glob("*/snapshots/*.json")
    run.write_text("not to be read")
    assert report_window(monitor, state, paths, second.window) is not None
    assert run.read_text() == "not to be read"


def test_a_window_is_one_run_in_mlflow_and_a_signal_has_one_name(own_store: None, paths: Paths) -> None:
    up = Signal("descriptors", "drift", 0.7, None, None, 0.5, 0.01, "links up", 125)
    for number, direction in enumerate(("links up", "digits down"), start=1):
        moved = replace(up, direction=direction)
        seen = JudgedWindow(number, f"id{number}", RELEASE, 125, (moved, replace(moved, windows=2)))
        for _ in range(2):
            record(paths, seen, "told")
    runs = mlflow.MlflowClient().search_runs([experiment(paths)])
    assert [run.data.metrics for run in runs] == [{"descriptors": 0.7, "descriptors/2 windows": 0.7}] * 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(mlflow.MlflowClient().get_metric_history(runs[0].info.run_id, "descriptors")) == 1, "logged once"
