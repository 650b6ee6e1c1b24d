"""tasks/monitor/followup.py and mix_adjustment.py: drift with label shift is tested against the reference in that mix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tasks.monitor import watch
from tasks.monitor.decide import Decision
from tasks.monitor.mix_adjustment import adjust_to_mix, explained_by_mix
from tasks.monitor.reference import Reference, stored_reference
from tasks.monitor.state import State
from tasks.stage import Paths
from tests.tasks.traffic import RELEASE, answers, feedback, install, settings, world, write

COUNT = settings()[0].windows.count
TRENDS = ("label_mix 1 down", "joint away", "features away", "descriptors words up", "realised_recall down")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    paths = Paths(tmp_path)
    install(paths)
    stored = {"token": 1, "champion": RELEASE, "previous": None, "entry": {"token": 1, "action": "bootstrap"}}
    (paths.store / "pointer.json").write_text(json.dumps(stored))
    return paths


def decided(paths: Paths, parts: Sequence[dict[str, float]]) -> list[Decision]:
    """The decisions about windows of made traffic, of which each message is labelled rightly."""
    rng, records, labels = np.random.default_rng(11), [], []
    for facts in parts:
        arrays = world(COUNT, rng, **facts)
        records += answers(arrays, start=len(records))
        labels += arrays["label_ids"].tolist()
    write(paths.journal, records)
    write(paths.feedback, feedback(records, labels), worker=1)
    monitor, policy = settings()
    state = State(paths.monitor / "state.db")
    watch.cut(monitor, state, paths)
    return [watch.judge(monitor, policy, state, paths, window).decision for window in state.unjudged()]


def test_another_mix_moves_descriptors_and_features_too_and_is_recalibrated(paths: Paths) -> None:
    *_, last = decided(paths, [{}, {"spam": 0.1}, {"spam": 0.1}])
    assert last.action == "recalibrate", last.reasons
    confirmed = {key.split(" ")[0] for key in last.confirmed}
    assert confirmed & {"descriptors", "features", "joint"}, "else there was nothing to explain"
    assert any("explained by the label mix" in reason for reason in last.reasons)
    intent = State(paths.monitor / "state.db").open_intent("recalibrate")
    assert intent is not None
    assert intent.facts == {"parent": RELEASE, "windows": [2, 3]}


def test_another_mix_of_other_inputs_is_restilled(paths: Paths) -> None:
    *_, last = decided(paths, [{}, {"spam": 0.1, "moved": 0.7}, {"spam": 0.1, "moved": 0.7}])
    assert last.action == "restill", last.reasons


def test_drift_is_explained_in_the_mix_that_the_scores_say_and_of_other_inputs_it_is_not(paths: Paths) -> None:
    held = stored_reference(paths.store, RELEASE)
    reference, monitor, rng = held.reference, settings()[0], np.random.default_rng(3)
    sample = held.sample_of(answers(world(500, rng, spam=0.1)))
    assert adjust_to_mix(reference, sample).labels.mean() == pytest.approx(0.1, abs=0.03)
    found = explained_by_mix(reference, sample, monitor.signals, TRENDS, 0.001)
    assert found == {"joint away", "features away", "descriptors words up"}
    few = Reference(reference.sample.take(np.arange(40)), reference.labels[:40], reference.names, reference.positive)
    assert explained_by_mix(few, sample, monitor.signals, TRENDS, 0.001) == frozenset(), "too few to tell"
    other = held.sample_of(answers(world(500, rng, spam=0.1, moved=0.5)))
    assert explained_by_mix(reference, other, monitor.signals, TRENDS, 0.001) == {"features away"}
