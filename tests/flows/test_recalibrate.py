"""A recalibration from the traffic to the new champion, by the real steps, though its run dies behind every one of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from prefect.testing.utilities import prefect_test_harness

from flows import recalibrate, restill
from flows.notice import name_of
from flows.status import loop
from flows.steps import tree_of
from service.release import verify
from service.store import read_pointer, release_folder
from tasks.monitor import watch
from tasks.monitor.settings import read_monitor
from tasks.monitor.state import Intent, State
from tasks.release.store import add, history, promote
from tests.imports import MAIL, ROOT
from tests.shifted import GATE, SETTINGS, UNTIL, World, messages
from tests.tasks.traffic import write

MODEL = "restill"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness():
        yield


@pytest.fixture
def world(students: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_store: None) -> World:
    """A project with a champion and three windows of traffic, in the last two of which spam is rare."""
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params |= {"gate": GATE.model_dump(mode="json"), "recalibrate": SETTINGS.model_dump(mode="json")}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("bentofile.yaml", "constraints.txt", "README.md"):
        shutil.copy2(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "service", tmp_path / "service", ignore=shutil.ignore_patterns("__pycache__"))
    made = World(tmp_path, students[1], ["ham", "spam"], "spam")
    sent = [*messages(125, spam=0.5, seed=1), *messages(250, spam=0.1, seed=2)]
    records = made.answers(sent)
    write(made.paths.journal, records)
    said = [{**record, "kind": "feedback", "id": record["id"], "label": label, "reviewer": "anna", "subject": "", "text": text,
             "received": record["time"], "answered": record, "n": n}
            for n, (record, (text, label)) in enumerate(zip(records[125::3], sent[125::3], strict=True))]  # fmt: skip
    write(made.paths.feedback, said, worker=1)
    return made


def decide(world: World) -> Intent:
    """What the monitor makes of the traffic."""
    settings, policy = read_monitor(yaml.safe_load((world.paths.root / "params.yaml").read_text()))
    state = State(world.paths.monitor / "state.db")
    watch.cut(settings, state, world.paths)
    judged = [watch.judge(settings, policy, state, world.paths, window, UNTIL) for window in state.unjudged()]
    assert judged[-1].decision.action == "recalibrate", judged[-1].decision.reasons
    assert judged[-1].intent is not None
    return judged[-1].intent


class Killed(BaseException):
    """What ends a process ends the run between a step's work and its being written down."""


def dies_at(name: str, made: list[str]) -> Callable[..., Intent]:
    """``State.advance`` of a run that is killed before it writes down step ``name``; releases that were ``made`` are noted."""
    advance = State.advance

    def die(self: State, identity: int, step: str, **facts: Any) -> Intent:
        made.extend([facts["release"]] if "release" in facts else [])
        if step == name:
            raise Killed
        return advance(self, identity, step, **facts)

    return die


def test_a_run_that_dies_behind_every_step_still_promotes_one_release_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    intent, state = decide(world), State(world.paths.monitor / "state.db")
    assert loop(world.paths)[1].startswith(f"{name_of(intent)} recalibrate, step open")
    made: list[str] = []
    for name in recalibrate.STEPS:
        with monkeypatch.context() as dying:
            dying.setattr(State, "advance", dies_at(name, made))
            with pytest.raises(Killed):
                restill.restill(world.paths.root)
        assert state.intent(intent.id).outcome is None
    done = restill.restill(world.paths.root, return_state=True)
    assert done.is_completed(), done.message
    ended = state.intent(intent.id)
    assert ended.outcome == "promoted", ended.facts
    assert made == [ended.facts["release"]] * 2, "each try made the same bytes"
    assert [entry["action"] for entry in history(world.paths.store)] == ["bootstrap", "promote"]
    pointer = read_pointer(world.paths.store)
    assert pointer is not None
    assert (pointer.champion, pointer.previous) == (ended.facts["release"], world.champion)
    assert verify(release_folder(world.paths.store, pointer.champion)) == pointer.champion
    assert str(ended.facts["bento"]).startswith(f"restill:{pointer.champion}-")
    assert f"release {pointer.champion}, {world.champion} recalibrated, was promoted" in str(done.message)
    client = mlflow.MlflowClient()
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    assert version.tags["release"] == pointer.champion
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert "| spam | 0." in run.data.tags["mlflow.note.content"]
    assert not tree_of(world.paths, ended).exists()
    assert restill.restill(world.paths.root, return_state=True).name == "Idle"


def test_a_champion_that_was_replaced_meanwhile_is_not_recalibrated_and_the_intent_ends_aloud(world: World) -> None:
    intent = decide(world)
    release = add(world.paths.store, world.trial.champion)
    pointer = read_pointer(world.paths.store)
    assert pointer is not None
    promote(world.paths.store, release, expected=pointer.token, who="a person", why="", gate=None)
    for _ in range(2):
        assert restill.restill(world.paths.root, return_state=True).is_failed()
    ended = State(world.paths.monitor / "state.db").intent(intent.id)
    assert ended.outcome == "failed"
    assert f"{world.champion} was to be recalibrated, and is not the champion any more" in ended.facts["error"]


def test_what_the_gate_refuses_is_left_to_a_restill(world: World) -> None:
    params = yaml.safe_load((world.paths.root / "params.yaml").read_text())
    params["gate"]["bytes"] = {"maximum": 1}
    (world.paths.root / "params.yaml").write_text(yaml.safe_dump(params))
    intent = decide(world)
    assert restill.restill(world.paths.root, return_state=True).is_completed()
    state = State(world.paths.monitor / "state.db")
    assert state.intent(intent.id).outcome == "rejected"
    pointer = read_pointer(world.paths.store)
    assert pointer is not None
    assert pointer.champion == world.champion
    (attempt,) = state.attempts()
    assert (attempt.kind, attempt.outcome) == ("recalibrate", "rejected")
    more = world.answers(messages(125, spam=0.1, seed=9))
    write(world.paths.journal, more, worker=2)
    settings, policy = read_monitor(params)
    watch.cut(settings, state, world.paths)
    (last,) = [watch.judge(settings, policy, state, world.paths, window, UNTIL) for window in state.unjudged()]
    assert last.decision.action == "restill", last.decision.reasons
    assert "no recalibration: there was one" in "; ".join(last.decision.reasons)
