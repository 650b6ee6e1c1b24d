"""The flow restill with steps of straw: how an intent ends where one of them fails, and what is left behind."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Late, Running, Scheduled
from prefect.testing.utilities import prefect_test_harness

from flows import deployments, pipeline, restill, steps
from flows.file_lock import run_lock
from flows.notice import name_of
from flows.status import loop
from tasks.monitor.state import Intent, State
from tasks.stage import Paths, StageError
from tests.imports import MAIL

FACTS: dict[str, dict[str, Any]] = {
    "snapshot": {},
    "build": {"release": "abc", "version": "1"},
    "gate": {"passed": True, "failed": [], "token": 1},
    "promote": {"promoted": True},
    "commit": {"commit": "123"},
    "bento": {"bento": "restill:abc"},
    "push": {"push": "pushed"},
}


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness():
        yield


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project with one open intent, in which every step but the notice is of straw."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copy2(MAIL / "params.yaml", tmp_path)
    for name, facts in FACTS.items():
        monkeypatch.setitem(restill.STEPS, name, step(facts))
    monkeypatch.setattr(restill, "RETRIED", {})
    State(Paths(tmp_path).monitor / "state.db").ask("a test", datetime.now(UTC))
    return Paths(tmp_path)


def step(facts: dict[str, Any]) -> Any:
    def done(_: Paths, intent: Intent) -> dict[str, Any]:
        return facts

    return done


def failing(_: Paths, intent: Intent) -> dict[str, Any]:
    raise StageError("it is away")


def intent_of(paths: Paths) -> Intent:
    return State(paths.monitor / "state.db").intent(1)


def tree_of(paths: Paths) -> Path:
    tree = paths.home / "worktrees" / name_of(intent_of(paths))
    tree.mkdir(parents=True, exist_ok=True)
    return tree


@pytest.mark.parametrize(
    ("fails", "outcome"), [("gate", "failed"), ("promote", "failed"), ("commit", "promoted"), ("push", "promoted")]
)
def test_an_intent_ends_as_what_it_has_reached_whatever_fails_then(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, fails: str, outcome: str
) -> None:
    monkeypatch.setitem(restill.STEPS, fails, failing)
    monkeypatch.setattr(restill, "commit", restill.STEPS["commit"])
    tree = tree_of(paths)
    assert restill.restill(paths.root, return_state=True).is_failed()
    assert intent_of(paths).outcome is None
    assert restill.restill(paths.root, return_state=True).is_failed()
    assert intent_of(paths).outcome == outcome
    assert intent_of(paths).facts["error"] == "it is away"
    assert tree.exists() == (fails == "commit"), "the only place that says what the champion was made of"
    monkeypatch.setattr(restill, "commit", step({}))
    assert restill.restill(paths.root, return_state=True).name == "Idle"
    assert not tree.exists(), "it could be committed now"


def test_a_change_that_is_not_committed_lets_the_intent_wait_and_status_says_for_what(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as real:
        real.setitem(restill.STEPS, "snapshot", restill.snapshot)
        state = restill.restill(paths.root, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Waiting")
    why = "params.yaml is not as it was committed: a retraining starts from a commit, so commit the change first"
    assert str(state.message) == f"{name_of(intent_of(paths))} waits: {why}"
    assert not [record for record in caplog.records if record.exc_info]
    assert "failures" not in intent_of(paths).facts
    shown = loop(paths)
    assert shown[0].split(maxsplit=1) == ["monitor", "has judged no window yet"]
    assert shown[1].endswith(f"restill, step open, waits: {why}")
    assert shown[2].split(maxsplit=1) == ["retraining", f"is held back: {why}"]
    assert restill.restill(paths.root, return_state=True).name == "Completed", "it waits no longer"
    assert len(loop(paths)) == 2


def test_a_failure_that_was_overcome_is_not_told_any_more(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as away:
        away.setitem(restill.STEPS, "push", failing)
        assert restill.restill(paths.root, return_state=True).is_failed()
    state = restill.restill(paths.root, return_state=True)
    assert state.is_completed()
    assert str(state.message).endswith("release abc was promoted (bento restill:abc)")


def test_a_worktree_that_a_killed_run_left_is_removed_by_the_next(paths: Paths) -> None:
    tree = tree_of(paths)
    State(paths.monitor / "state.db").end(1, "rejected")
    unknown = tree.with_name("intent-7-20200101T000000")
    unknown.mkdir()
    assert restill.restill(paths.root, return_state=True).name == "Idle"
    assert not tree.exists()
    assert unknown.exists(), "of whom nothing is known, nothing is removed"


def test_a_promotion_of_an_earlier_state_is_not_taken_for_this_one_s(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    intent = State(paths.monitor / "state.db").advance(1, "gate", passed=True, release="abc", token=1, gate="g.json")
    why = f"{name_of(intent)}, decision {intent.decision}"
    asked: list[str] = []

    def promote(store: Path, release: str, **_: Any) -> Any:
        asked.append(release)
        raise StageError("asked")

    monkeypatch.setattr(steps, "promote", promote)
    monkeypatch.setattr(steps, "history", lambda store: [{"why": why, "to": "abc"}])
    assert restill.promote_release(paths, intent) == {"promoted": True}
    monkeypatch.setattr(steps, "history", lambda store: [{"why": why, "to": "another"}])
    with pytest.raises(StageError, match="asked"):
        restill.promote_release(paths, intent)
    assert asked == ["abc"]


def test_one_pipeline_works_at_a_time_and_the_other_says_so(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["dvc", "init", "-q"], cwd=paths.root, check=True)
    monkeypatch.chdir(paths.root)
    monkeypatch.setattr("sys.argv", ["pipeline"])
    with run_lock(paths, "pipeline"):
        assert pipeline.pipeline(paths.root, return_state=True).name == "Skipped"
        with pytest.raises(SystemExit, match="pipeline: another pipeline is at work"):
            pipeline.main()


def test_only_our_own_runs_are_settled_and_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployments, "PAGE", 2)
    tag = deployments.tag_of(tmp_path)

    @flow(name="stranger")
    def stranger() -> None:
        return

    async def scene() -> tuple[list[str], list[str]]:
        async with get_client() as client:

            async def run(of: Any, state: Any, *tags: str) -> Any:
                made = await client.create_flow_run(of, tags=list(tags))
                await client.set_flow_run_state(made.id, state, force=True)
                return made.id

            flow_of = deployments.FLOWS["monitor"]
            ours = [await run(flow_of, state, tag, "auto-scheduled") for state in (Running(), Running(), Running(), Late())]
            others = [
                await run(flow_of, Running()),
                await run(flow_of, Running(), "restill-another"),
                await run(stranger, Running(), tag),
                await run(flow_of, Scheduled(), tag),
            ]
            done = await deployments.settle_flow_runs(tmp_path)
            assert len(done) == len(ours)
            states = [[(await client.read_flow_run(identity)).state_name for identity in runs] for runs in (ours, others)]
            return states[0], states[1]

    ours, others = asyncio.run(scene())
    assert ours == ["Crashed", "Crashed", "Crashed", "Cancelled"]
    assert others == ["Running", "Running", "Running", "Scheduled"]
