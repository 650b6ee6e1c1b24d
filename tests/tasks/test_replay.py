"""The replay's own arithmetic: periods, totals, injected changes, worlds."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import replay
from service.kinds import serving_class
from service.kinds.image_classification.images import decode, encode_png
from tasks.kinds.image_classification.replay import CHANGES
from tasks.monitor.policy import Decision, JudgedWindow
from tasks.replay import server
from tasks.replay.page import draw_periods, replay_page
from tasks.replay.periods import by_period, figures, rollback_change, total, with_periods
from tasks.replay.scenarios import scenarios
from tasks.replay.source import Change, Drawn, draw
from tasks.replay.stream import is_reviewed
from tasks.replay.world import merged
from tasks.stage import Paths, StageError, read_params, read_settings
from tests.imports import MAIL


def answers(frozen: str, restilled: str, truth: str, recalibrated: str | None = None) -> pd.DataFrame:
    """One message a day from Monday, 2002-07-01; s is spam, h is ham."""
    names = {"s": "spam", "h": "ham"}
    start = datetime(2002, 7, 1, tzinfo=UTC)
    rows = pd.DataFrame(
        {
            "number": range(1, len(truth) + 1),
            "received": [start + timedelta(days=day) for day in range(len(truth))],
            "label": [names[c] for c in truth],
            "frozen": [names[c] for c in frozen],
            "recalibrated": [names[c] for c in recalibrated or frozen],
            "restilled": [names[c] for c in restilled],
        }
    )
    return with_periods(rows)


def test_weeks_count_what_each_model_got_wrong() -> None:
    rows = answers(frozen="sshhhhsshhh", restilled="sshhhhhhhhh", truth="sshhhhhshhh")
    first, second = by_period(rows, "spam")
    assert (first["period"], second["period"]) == ("2002-07-01", "2002-07-08")
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
    (week,) = by_period(answers(frozen="hs", restilled="hh", truth="hh"), "spam")
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
        "recalibrations": [], "begins": [], "known": 6,
        "periods": by_period(rows, "spam"), "totals": {"all": total(rows, "spam", 100, 1)},
        "changes": [
            {"number": 3, "period": "2002-07-01", "place": 0, "kind": "restill", "release": "abc", "outcome": "promoted",
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
        "period": rows.period[2],
        "labels": 1,
        "number": 3,
    }
    found = figures({"answers": rows, "changes": [change], "recalibrations": [], "windows": []}, "spam", 100, 1)
    assert found["changes"][0]["outcome"] == "rolled back"
    assert list(found["totals"]) == ["The whole stream"]
    drawn = [
        draw_periods({**found, "positive": "spam", "begins": [], "changes": changes}) for changes in ([], found["changes"])
    ]
    assert drawn[0].count("stroke: #c0392b") < drawn[1].count("stroke: #c0392b")


def test_a_promotion_by_the_last_input_has_nothing_after_it() -> None:
    rows = answers(frozen="sshhhh", restilled="sshhhh", truth="sshhhh")
    change = {"period": rows.period.iloc[-1], "release": "abc", "outcome": "promoted", "why": "", "labels": 1, "number": 6}
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
    replay.demand_label("spam", rows, rows)
    with pytest.raises(StageError, match=r"replay\.positive = spma: the labels before the stream are ham, spam"):
        replay.demand_label("spma", rows, rows)
    with pytest.raises(StageError, match="the labels in the stream are ham"):
        replay.demand_label("spam", rows, rows[rows.label == "ham"])
    drawn = {"known": 10, "stream": 10, "changes": []}
    with pytest.raises(StageError, match="since and drawn are two sources of one stream"):
        settings(drawn=drawn)
    with pytest.raises(StageError, match="end = 3 is not after start = 5"):
        settings(since=None, drawn=drawn | {"changes": [{"change": "noisy", "start": 5, "end": 3, "share": 0.5}]})


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


def images(count: int) -> pd.DataFrame:
    """Plain images of two labels, without times."""
    files = [encode_png(np.full((8, 8), number % 256, dtype=np.uint8)) for number in range(count)]
    return pd.DataFrame(
        {"id": [f"i{n}" for n in range(count)], "label": ["a" if n % 2 else "b" for n in range(count)], "image": files}
    ).assign(received=pd.Series(pd.NaT, index=range(count), dtype="datetime64[us, UTC]"), source="made")


SERVING = serving_class("image_classification")({"image": {"height": 8, "width": 8, "channels": 1, "mean": 0, "std": 1}})


def test_a_drawn_stream_changes_where_it_says_and_shares_nothing_with_what_is_known() -> None:
    corpus = images(200)
    changes = (Change(change="inverted", start=30, end=60, share=1), Change(change="noisy", start=80, end=None, share=0.5))
    known, stream = draw(corpus, Drawn(known=100, stream=100, changes=changes), "image_classification", SERVING, 1)
    assert (len(known), len(stream)) == (100, 100)
    assert not set(known.id) & set(stream.id)
    before = corpus.set_index("id").image
    changed = [row.image != before[row.id] for row in stream.itertuples()]
    assert not any(changed[:30])
    assert all(changed[30:60])
    assert not any(changed[60:80])
    assert 3 < sum(changed[80:]) < 17
    assert (stream.label == stream.id.map(corpus.set_index("id").label)).all(), "what is changed keeps its label"
    again = draw(corpus, Drawn(known=100, stream=100, changes=changes), "image_classification", SERVING, 1)[1]
    assert list(again.image) == list(stream.image), "the same for the same seed"


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ({"known": 150, "stream": 51, "changes": []}, "known = 150 and stream = 51 are 201 rows, and the source has 200"),
        (
            {"known": 1, "stream": 9, "changes": [{"change": "louder", "start": 0, "end": None, "share": 1}]},
            "'louder': expected one of noisy, blurred",
        ),
        (
            {"known": 1, "stream": 9, "changes": [{"change": "noisy", "start": 9, "end": None, "share": 1}]},
            "noisy: start = 9, but stream = 9",
        ),
    ],
)
def test_a_stream_that_cannot_be_drawn_is_one_clear_error(drawn: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        draw(images(200), Drawn(**drawn), "image_classification", SERVING, 1)


def test_without_a_positive_label_accuracy_is_told_by_blocks_of_the_stream() -> None:
    stream = with_periods(images(48))
    assert list(stream.period)[:4] == ["1", "1", "3", "3"]
    rows = stream.assign(number=range(1, 49), frozen="a", recalibrated="a", restilled=stream.label)
    found = figures({"answers": rows, "changes": [], "recalibrations": [], "windows": []}, None, 100, 1)
    whole = found["totals"]["The whole stream"]
    assert (whole["frozen"]["accuracy"], whole["restilled"]["accuracy"]) == (0.5, 1.0)
    assert whole["frozen"]["wrong"] == 24
    assert whole["difference"]["restilled"]["accuracy"]["interval"][0] > 0
    assert len(found["periods"]) == 24
    begins = [{"change": "noisy", "start": 4, "end": None, "share": 0.5, "place": 2}]
    told = {"since": None, "known": 9, "labelled": 0.1, "delay": 5, "seed": 1, "positive": None, "injected": []}
    page = replay_page(found | told | {"begins": begins})
    assert "from number 5, 50&nbsp;% of them noisy" in page
    assert "accuracy" in page
    assert "F1" not in page


def test_a_letter_is_no_garment_and_differs_from_draw_to_draw() -> None:
    rng = np.random.default_rng(1)
    raw = encode_png(np.zeros((28, 28), dtype=np.uint8))
    drawn = {CHANGES["of an unseen class"](raw, rng) for _ in range(20)}
    assert len(drawn) == 20
    assert all(np.asarray(decode(file)[0]).max() > 200 for file in drawn)
