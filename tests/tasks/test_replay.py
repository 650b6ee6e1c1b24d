"""The replay's own arithmetic: weeks, totals, injected changes, worlds."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from flows import replay
from tasks.monitor.policy import Decision, JudgedWindow
from tasks.replay import server
from tasks.replay.page import draw_weeks, replay_page
from tasks.replay.scenarios import scenarios
from tasks.replay.stream import is_reviewed
from tasks.replay.weeks import figures, rollback_change, total, weekly
from tasks.replay.world import merged
from tasks.stage import Paths, StageError, read_params, read_settings
from tests.imports import MAIL


def answers(frozen: str, restilled: str, truth: str, recalibrated: str | None = None) -> pd.DataFrame:
    """One message a day from Monday, 2002-07-01; s is spam, h is ham."""
    names = {"s": "spam", "h": "ham"}
    start = datetime(2002, 7, 1, tzinfo=UTC)
    return pd.DataFrame(
        {
            "received": [start + timedelta(days=day) for day in range(len(truth))],
            "label": [names[c] for c in truth],
            "frozen": [names[c] for c in frozen],
            "recalibrated": [names[c] for c in recalibrated or frozen],
            "restilled": [names[c] for c in restilled],
        }
    )


def test_weeks_count_what_each_model_got_wrong() -> None:
    rows = answers(frozen="sshhhhsshhh", restilled="sshhhhhhhhh", truth="sshhhhhshhh")
    first, second = weekly(rows, "spam")
    assert (first["week"], second["week"]) == ("2002-07-01", "2002-07-08")
    assert first["frozen"]["false_positives"] == 1
    assert first["restilled"]["false_positives"] == 0
    assert first["frozen"]["f1"] == pytest.approx(0.8)
    assert second["restilled"]["missed"] == 1
    assert second["restilled"]["miss_rate"] == 1.0


def test_a_better_model_has_a_positive_difference_that_excludes_zero() -> None:
    rows = answers(frozen="sh" * 100, restilled="hs" * 100, truth="hs" * 100)
    found = total(rows, "spam", 300, 1)["difference"]
    assert found["restilled"]["f1"]["value"] == 1.0
    assert found["restilled"]["f1"]["interval"][0] > 0
    assert found["recalibrated"]["f1"]["interval"] == [0.0, 0.0], "as frozen"
    half = answers(frozen="sh" * 100, recalibrated="hs" * 50 + "sh" * 50, restilled="hs" * 100, truth="hs" * 100)
    assert total(half, "spam", 300, 1)["difference"]["recalibrated"]["f1"]["value"] == 0.5


def test_a_week_without_spam_has_no_f1_and_no_crash() -> None:
    (week,) = weekly(answers(frozen="hs", restilled="hh", truth="hh"), "spam")
    assert week["frozen"]["f1"] is None, "one false alarm, or many, of nothing to find: F1 would be 0 for both"
    assert week["frozen"]["false_positive_rate"] == 0.5


def test_labels_are_drawn_alike_in_every_run_and_at_the_stated_rate() -> None:
    names = [f"message-{number}" for number in range(5000)]
    drawn = [name for name in names if is_reviewed(name, 0.1, 1)]
    assert drawn == [name for name in names if is_reviewed(name, 0.1, 1)]
    assert 400 < len(drawn) < 600
    assert drawn != [name for name in names if is_reviewed(name, 0.1, 2)]


def test_injected_changes_begin_where_they_say() -> None:
    pool = pd.DataFrame(
        {"raw": [f"text {n}" for n in range(400)], "label": ["spam" if n % 5 == 0 else "ham" for n in range(400)]}
    )
    label_of = dict(zip(pool.raw, pool.label, strict=True))
    every = {entry.name: entry for entry in scenarios("text_classification", pool, "spam", 1000, 100, 0.2, 0.1, 1)}
    known = set(pool.raw)
    for entry in every.values():
        assert len(entry.raws) == 1000
        assert set(entry.raws[: entry.start]) <= known
    campaign = next(entry for name, entry in every.items() if "campaign" in name)
    foreign = [text for text in campaign.raws if text not in known]
    assert 130 < len(foreign) < 230
    assert len(set(foreign)) > 0.9 * len(foreign), "a campaign is not one text sent often"
    more = next(entry for name, entry in every.items() if "more" in name)
    share = sum(label_of[text] == "spam" for text in more.raws[100:]) / 900
    assert share == pytest.approx(0.3, abs=0.05)
    for name in ("nothing changed", "the same in another order"):
        assert set(every[name].raws) <= known
        assert not every[name].must_be_seen


def test_a_world_changes_parameters_that_there_are() -> None:
    params = {"train": {"epochs": 3, "seed": 1}}
    assert merged(params, {"train": {"epochs": 1}}) == {"train": {"epochs": 1, "seed": 1}}
    with pytest.raises(StageError, match="epoch = 1: there is no such parameter"):
        merged(params, {"train": {"epoch": 1}})


def test_windows_of_a_replay_go_by_their_count_alone() -> None:
    """Its months of mail come within minutes, and what is sent is followed by its number."""
    params = read_params(MAIL)
    assert merged(params, params["replay"]["params"])["monitor"]["windows"]["least_seconds"] == 0


def test_the_page_escapes_what_came_from_outside() -> None:
    rows = answers(frozen="sshhhh", restilled="sshhhh", truth="sshhhh")
    report = {
        "since": "2002-07-01", "labelled": 0.1, "delay": 5, "seed": 1, "positive": "<b>spam</b>", "injected": [],
        "recalibrations": [],
        "weeks": weekly(rows, "spam"), "totals": {"all": total(rows, "spam", 100, 1)},
        "changes": [
            {"number": 3, "week": "2002-07-01", "place": 0, "kind": "restill", "release": "abc", "outcome": "promoted",
             "why": "<i>", "labels": 2}
        ],
        "windows": [{"number": 1, "action": "restill", "surprise": {"label_mix": 4.0}}],
    }  # fmt: skip
    page = replay_page(report)
    assert "<svg" in page
    assert "<b>spam" not in page
    assert "<i>" not in page


def test_a_rollback_is_a_change_that_is_drawn_and_promotes_nothing() -> None:
    rows = answers(frozen="sshhhh", restilled="sshhhh", truth="sshhhh")
    decision = Decision("d", "rollback", ("13 of 60 answers were wrong",), (), (), (), True)
    change = rollback_change(JudgedWindow(1, "w", "abc", 125, (), decision)) | {
        "received": rows.received.iloc[2],
        "labels": 1,
        "number": 3,
    }
    found = figures({"answers": rows, "changes": [change], "recalibrations": [], "windows": []}, "spam", 100, 1)
    assert found["changes"][0]["outcome"] == "rolled back"
    assert list(found["totals"]) == ["The whole stream"]
    drawn = [draw_weeks({**found, "positive": "spam", "changes": changes}) for changes in ([], found["changes"])]
    assert drawn[0].count("stroke: #c0392b") < drawn[1].count("stroke: #c0392b")


def test_a_promotion_by_the_last_message_has_nothing_after_it() -> None:
    rows = answers(frozen="sshhhh", restilled="sshhhh", truth="sshhhh")
    change = {"received": rows.received.iloc[-1], "release": "abc", "outcome": "promoted", "why": "", "labels": 1, "number": 6}
    found = figures({"answers": rows, "changes": [change], "recalibrations": [], "windows": []}, "spam", 100, 1)
    assert list(found["totals"]) == ["The whole stream"]
    assert found["changes"][0]["place"] == 0


def settings(**changes: Any) -> replay.Replay:
    params = read_params(MAIL)
    return read_settings(replay.Replay, "replay", {"replay": params["replay"] | changes})


def test_what_is_wrong_with_the_parameters_is_said_before_anything_is_trained() -> None:
    with pytest.raises(StageError, match=r"replay\.since = 'last summer'"):
        settings(since="last summer")
    rows = answers(frozen="sshh", restilled="sshh", truth="sshh")
    since = "2002-08-01"
    replay.demand_label("spam", since, rows, rows)
    with pytest.raises(StageError, match=r"replay\.positive = spma: what came before 2002-08-01 is ham, spam"):
        replay.demand_label("spma", since, rows, rows)
    with pytest.raises(StageError, match="what came after 2002-08-01 is ham"):
        replay.demand_label("spam", since, rows, rows[rows.label == "ham"])


def test_a_restill_that_never_counts_its_failures_is_not_run_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy2(MAIL / "params.yaml", tmp_path)
    told: list[str] = []

    def waits(*_: Any) -> None:
        raise StageError("it waits")

    monkeypatch.setattr(replay, "run_in", waits)
    state: Any = SimpleNamespace(intent=lambda identity: SimpleNamespace(outcome=None))
    progress = SimpleNamespace(set_postfix=lambda **_: None, write=told.append)
    client: Any = None
    with pytest.raises(StageError, match="intent 3 does not end"):
        replay.restill_now(Paths(tmp_path), {}, tmp_path / "log", state, 3, client, progress)
    assert told == ["it waits"] * 4


def test_a_service_that_dies_at_its_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "sys", SimpleNamespace(executable=shutil.which("false")))
    log = tmp_path / "service.log"
    with pytest.raises(StageError, match="a server did not start"), server.service(tmp_path, {}, tmp_path, None, log):
        pytest.fail("it cannot be there")
