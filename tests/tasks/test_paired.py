"""tasks/monitor/paired.py: the release before answers the same labelled rows, and only a worse release is undone."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.release import Release
from service.store import release_folder
from tasks.monitor import watch
from tasks.monitor.decide import Decision
from tasks.monitor.paired import ConfirmedRow, compare, confirmed_rows
from tasks.monitor.policy import Paired
from tasks.monitor.state import State
from tasks.release.package import seal
from tasks.release.store import add
from tasks.stage import Paths
from tests.conftest import made_text
from tests.tasks.traffic import LABELS, RELEASE, answers, feedback, install, settings, world, write

COUNT = settings()[0].windows.count


@pytest.fixture
def paths(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A store with a champion, and before it a release that can answer."""
    monkeypatch.delenv("RESTILL_HOME", raising=False)
    paths = Paths(tmp_path)
    install(paths)
    np.savez(release / "reference.npz", **world(1300, np.random.default_rng(0)))  # type: ignore[arg-type]
    seal(release)
    before = add(paths.store, release)
    entry = {"token": 2, "action": "promote", "who": "tests", "why": "", "from": before, "to": RELEASE}
    pointer = {"token": 2, "champion": RELEASE, "previous": before, "entry": entry}
    (paths.store / "pointer.json").write_text(json.dumps(pointer))
    return paths


def before_of(paths: Paths) -> str:
    return str(json.loads((paths.store / "pointer.json").read_text())["previous"])


def labelled_traffic(paths: Paths, *, wrong: float, drift: bool) -> None:
    """Two windows of the release before, and one of the champion, of whose answers a share is ``wrong``; all labelled.

    Where that is ``drift``, the inputs look to both releases like the other label.
    """
    rng, words = np.random.default_rng(7), random.Random(7)
    records = [
        *answers(world(2 * COUNT, rng), release=before_of(paths)),
        *answers(world(COUNT, rng), start=2 * COUNT),
    ]
    said = [LABELS.index(record["label"]) for record in records]
    true = [1 - label if n >= 2 * COUNT and rng.random() < wrong else label for n, label in enumerate(said)]
    given = feedback(records, true)
    for record, label, answered in zip(given, true, said, strict=True):
        record["text"] = made_text(LABELS[answered if drift else label], words, 80)
    write(paths.journal, records)
    write(paths.feedback, given, worker=1)


def decided(paths: Paths) -> list[Decision]:
    monitor, policy = settings()
    state = State(paths.monitor / "state.db")
    watch.cut(monitor, state, paths)
    return [watch.judge(monitor, policy, state, paths, window).decision for window in state.unjudged()]


def test_a_release_that_is_worse_is_undone_with_the_champion_and_the_token_of_the_judgement(paths: Paths) -> None:
    labelled_traffic(paths, wrong=0.3, drift=False)
    *_, last = decided(paths)
    assert last.action == "rollback"
    assert "of the same 125 rows this release has" in last.reasons[0]
    assert last.reasons[-1] == f"back to release {before_of(paths)}"
    intent = State(paths.monitor / "state.db").open_intent("rollback")
    assert intent is not None
    assert intent.facts == {"champion": RELEASE, "token": 2}


def test_evidence_about_a_release_that_serves_no_more_undoes_nothing(paths: Paths) -> None:
    """Somebody went back before the window was judged: the release before it is the bad one now."""
    stored = json.loads((paths.store / "pointer.json").read_text())
    swapped = {"champion": stored["previous"], "previous": stored["champion"]}
    labelled_traffic(paths, wrong=0.3, drift=False)
    (paths.store / "pointer.json").write_text(json.dumps(stored | swapped | {"token": 3}))
    *_, last = decided(paths)
    assert last.action != "rollback"
    assert State(paths.monitor / "state.db").open_intent("rollback") is None


def test_mail_that_both_have_wrong_undoes_nothing(paths: Paths) -> None:
    labelled_traffic(paths, wrong=0.3, drift=True)
    *_, last = decided(paths)
    assert last.action not in ("rollback", "investigate")
    assert last.reasons[-1].endswith("which is not shown to be better: no rollback")
    assert State(paths.monitor / "state.db").open_intent("rollback") is None


def test_a_release_before_that_is_not_whole_is_not_gone_back_to_and_people_are_told(paths: Paths) -> None:
    labelled_traffic(paths, wrong=0.3, drift=False)
    card = release_folder(paths.store, before_of(paths)) / "card.json"
    card.chmod(0o644)
    card.write_text("{}")
    *_, last = decided(paths)
    assert last.action == "investigate"
    assert "card.json was changed" in last.reasons[-1]
    assert last.news


def record(n: int, label: str, **changes: Any) -> dict[str, Any]:
    """What a reviewer says of input ``n``, which the champion had answered with ham."""
    answered = {"label": "ham", "release": RELEASE, "hash": f"hash {n}"}
    plain = {"time": "1", "id": f"{n}", "label": label, "reviewer": "anna", "subject": "", "text": f"text {n}"}
    return plain | {"answered": answered} | changes


def test_each_text_is_asked_about_once_and_only_where_its_label_stands() -> None:
    records = [
        record(1, "spam"),
        record(2, "spam"), record(2, "ham", time="2"),
        record(3, "spam"), record(3, "ham", reviewer="ben"),
        record(4, "ham"), record(5, "ham", answered={"label": "ham", "release": RELEASE, "hash": "hash 4"}),
        record(6, "spam", answered=None),
        record(7, "spam", answered={"label": "ham", "release": "another", "hash": "hash 7"}),
    ]  # fmt: skip
    assert [(said.content["text"], said.label) for said in confirmed_rows(records, RELEASE)] == [
        ("text 1", "spam"), ("text 2", "ham"), ("text 4", "ham"),
    ]  # fmt: skip


def content(text: str) -> dict[str, str]:
    return {"subject": "", "text": text}


def test_every_row_is_counted_where_it_belongs(release: Path) -> None:
    ham, spam = "kernel patch review agenda " * 5, "winner prize money offer " * 5
    asked = [
        (ham, "ham", "ham"), (spam, "spam", "ham"), (spam, "spam", "ham"), (ham, "spam", "spam"),
        (ham, "spam", "ham"), ("  ", "ham", "ham"), (ham, "news", "spam"),
    ]  # fmt: skip
    rows = [ConfirmedRow(content(text), label, answered) for text, label, answered in asked]
    found = compare(rows, Release(release))
    assert found == Paired(rows=6, both=2, lost=2, won=1)
    assert (found.wrong, found.wrong_before) == (4, 3)


def test_the_chance_of_a_tie_broken_so_often_one_way() -> None:
    assert Paired(9, 0, lost=0, won=0).p == 1
    assert Paired(9, 0, lost=0, won=5).p == 1
    assert Paired(9, 0, lost=3, won=0).p == pytest.approx(1 / 8)
    assert Paired(9, 5, lost=2, won=1).p == pytest.approx(1 / 2)
    assert Paired(30, 5, lost=9, won=1).p == pytest.approx(11 / 1024)
