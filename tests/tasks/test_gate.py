"""The gate: a good challenger passes, and each check can be the only one that stops a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from tasks.files import read_json, write_json
from tasks.kinds.text_classification.compress.networks import save_student
from tasks.release.checks import Check
from tasks.release.gate import CHECKS, Gate, Report, gate, page, refusal, table, write
from tests.conftest import fitted_network, made_prepared
from tests.trial import CHALLENGER_KNOWS, DEFAULTS, SHARES, Trial, messages, with_feedback

WIDE: dict[str, dict[str, Any]] = {
    "golden": {"margin": 1, "minimum": 0}, "window": {"margin": 1}, "false_positives": {"maximum": 1, "margin": 1},
    "worst_slice": {"margin": 1}, "calibration": {"maximum": 1},
}  # fmt: skip
"""Bounds that stop nobody: for releases that are bad in several ways, of which one check is to see one."""


@pytest.fixture
def trial(students: tuple[Path, Path], tmp_path: Path) -> Trial:
    return Trial(tmp_path, students[1], ["ham", "spam"], "spam")


@pytest.fixture(scope="module")
def poor(students: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that has half forgotten what it learned: nearly half of its words say the opposite."""
    folder = copytree(students[0], tmp_path_factory.mktemp("poor") / "student")
    model, rng = onnx.load(folder / "model.onnx"), np.random.default_rng(0)
    words = max(model.graph.initializer, key=lambda weights: len(weights.raw_data))
    vectors = onnx.numpy_helper.to_array(words)
    signs = rng.choice(np.array([-1, 1], np.float32), size=(len(vectors), 1), p=[0.45, 0.55])
    words.CopyFrom(onnx.numpy_helper.from_array(vectors * signs, words.name))
    onnx.save(model, folder / "model.onnx")
    return folder


def failed(report: Report) -> list[str]:
    assert report.passed == (not report.failed)
    return [check.name for check in report.failed]


def but(name: str, **own: Any) -> dict[str, dict[str, Any]]:
    """Wide bounds, but for one check."""
    return {other: bounds for other, bounds in WIDE.items() if other != name} | ({name: own} if own else {})


def test_a_good_challenger_passes_every_check(trial: Trial) -> None:
    report = trial.judge()
    assert failed(report) == []
    assert [check.name for check in report.checks] == list(CHECKS)
    assert not report.unmade
    for check in report.checks:
        assert check.reason
        assert check.figure is not None or check.name == "champion"


def test_the_first_release_passes_without_a_champion_only_where_it_is_said_to_be_the_first(trial: Trial) -> None:
    report = trial.judge(bootstrap=True)
    assert failed(report) == []
    assert {check.name for check in report.checks if "bootstrap" in check.reason} == {
        "champion", "golden", "window", "false_positives", "worst_slice", "latency_us",
    }  # fmt: skip
    settings = Gate.model_validate(DEFAULTS)
    assert failed(gate(settings, trial.challenger, None, trial.prepared, bootstrap=False)) == ["champion"]
    assert failed(gate(settings, trial.challenger, trial.champion, trial.prepared, bootstrap=True)) == ["champion"]


def test_bootstrap_still_asks_for_all_that_needs_no_champion(trial: Trial, poor: Path, tmp_path: Path) -> None:
    trial.challenger = tmp_path / "poor"
    trial.make(trial.challenger, CHALLENGER_KNOWS, poor)
    assert {"golden", "false_positives"} <= set(failed(trial.judge(bootstrap=True)))


@pytest.mark.parametrize("name", ["card.json", "model/model.onnx"])
def test_a_flipped_byte_fails_manifest_alone_and_nothing_of_it_is_loaded(trial: Trial, name: str) -> None:
    content = bytearray((trial.challenger / name).read_bytes())
    content[len(content) // 2] ^= 1
    (trial.challenger / name).write_bytes(content)
    report = trial.judge()
    assert failed(report) == ["manifest"]
    assert name in report.checks[0].reason
    assert report.unmade == list(CHECKS)[1:]


@pytest.mark.parametrize("name", ["manifest.json", "settings.json"])
def test_a_missing_file_fails_manifest_alone(trial: Trial, name: str) -> None:
    (trial.challenger / name).unlink()
    assert failed(trial.judge()) == ["manifest"]


def test_an_id_that_is_a_path_does_not_become_a_file_name(trial: Trial, tmp_path: Path) -> None:
    manifest = read_json(trial.challenger / "manifest.json")
    write_json(trial.challenger / "manifest.json", manifest | {"id": "../../elsewhere"})
    report = trial.judge()
    assert failed(report) == ["manifest"]
    assert write(report, tmp_path / "gates", 1).parent == tmp_path / "gates"


def test_other_probe_scores_fail_probes_alone(trial: Trial) -> None:
    packed = read_json(trial.challenger / "probes.json")
    packed["probes"][0]["probabilities"] = packed["probes"][0]["probabilities"][::-1]
    trial.change(trial.challenger, "probes.json", packed)
    report = trial.judge()
    assert failed(report) == ["probes"]
    assert "on this host" in report.failed[0].reason


def test_a_spoiled_champion_fails_champion_alone(trial: Trial) -> None:
    (trial.champion / "card.json").write_text("{}")
    assert failed(trial.judge()) == ["champion"]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: messages(["ham", "spam"], 900).to_parquet(path)])
def test_rows_that_are_not_its_own_fail_lineage_alone(trial: Trial, spoil: Callable[[Path], None]) -> None:
    spoil(trial.prepared)
    assert failed(trial.judge()) == ["lineage"]


def a_training_row_of_a_golden_group(frame: pd.DataFrame) -> str:
    row, golden = frame.index[frame.split == "train"][7], frame.index[frame.split == "golden"][3]
    frame.loc[row, "group"] = frame.loc[golden, "group"]
    return str(frame.loc[row, "id"])


def a_training_row_with_the_text_of_the_future(frame: pd.DataFrame) -> str:
    row, future = frame.index[frame.split == "train"][7], frame.index[frame.split == "future"][3]
    frame.loc[row, "input"] = frame.loc[future, "input"]
    return str(frame.loc[row, "id"])


def a_training_row_received_after_the_snapshot(frame: pd.DataFrame) -> str:
    row = frame.index[frame.split == "train"][7]
    frame.loc[row, "received"] = CHALLENGER_KNOWS
    return str(frame.loc[row, "id"])


def a_golden_group_that_was_given_to_training(frame: pd.DataFrame) -> str:
    row = frame.index[frame.split == "golden"][3]
    frame.loc[row, "split"] = "train"
    return str(frame.loc[row, "id"])


@pytest.mark.parametrize(
    "spoil",
    [
        a_training_row_of_a_golden_group,
        a_training_row_with_the_text_of_the_future,
        a_training_row_received_after_the_snapshot,
        a_golden_group_that_was_given_to_training,
    ],
)
def test_what_judges_among_the_training_rows_fails_leakage_alone(trial: Trial, spoil: Callable[[pd.DataFrame], str]) -> None:
    frame = messages(["ham", "spam"])
    row = spoil(frame)
    trial.say(frame)
    report = trial.judge()
    assert failed(report) == ["leakage"]
    assert {leaked for ids in report.failed[0].details["ids"].values() for leaked in ids} == {row}


def test_other_shares_that_open_the_champions_golden_set_fail_leakage_alone(trial: Trial) -> None:
    moved = {"params": {"ingest": {"until": "2020-01-20"}, "prepare": {"splits": SHARES | {"golden": 0.6}}}}
    trial.change(trial.champion, "lineage.json", moved)
    report = trial.judge()
    assert failed(report) == ["leakage"]
    assert report.champion is not None
    assert f"golden for {report.champion}" in report.failed[0].reason


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_flipped_feedback_labels_do_not_pass_and_labels_says_so(trial: Trial, share: float) -> None:
    trial.say(with_feedback(messages(["ham", "spam"]), 200, share))
    report = trial.judge(**WIDE)
    assert failed(report) == ["labels"]
    figure, ids = report.failed[0].figure, report.failed[0].details["ids"]
    assert figure == pytest.approx(share, abs=0.03)
    assert len(ids) == round(figure * 200)


def test_honest_feedback_passes_and_its_absence_is_said(trial: Trial) -> None:
    assert "no row" in {check.name: check for check in trial.judge().checks}["labels"].reason
    trial.say(with_feedback(messages(["ham", "spam"]), 200, 0.0))
    assert failed(trial.judge()) == []


def test_one_doubted_label_among_a_few_is_no_flood(trial: Trial) -> None:
    frame = with_feedback(messages(["ham", "spam"]), 10, 0.1)
    trial.say(frame)
    check = {check.name: check for check in trial.judge().checks}["labels"]
    assert (check.figure, check.threshold, check.passed) == (0.1, 0.1, True)


def test_a_worse_ranking_fails_golden_alone(trial: Trial, poor: Path, tmp_path: Path) -> None:
    trial.challenger = tmp_path / "poor"
    trial.make(trial.challenger, CHALLENGER_KNOWS, poor)
    report = trial.judge(**but("golden", minimum=0))
    assert failed(report) == ["golden"]
    assert report.failed[0].figure is not None
    assert report.failed[0].figure < -DEFAULTS["golden"]["margin"]
    assert failed(trial.judge(**but("golden", minimum=0, figure="f1"))) == ["golden"]


def test_a_ranking_below_the_least_fails_golden_even_where_the_champion_is_as_poor(
    trial: Trial, poor: Path, tmp_path: Path
) -> None:
    for name, until in (("champion", "2020-01-20"), ("challenger", "2020-02-10")):
        setattr(trial, name, tmp_path / f"poor-{name}")
        trial.make(tmp_path / f"poor-{name}", pd.Timestamp(until, tz="UTC"), poor)
    report = trial.judge(**but("golden", minimum=0.99))
    assert failed(report) == ["golden"]
    assert report.failed[0].threshold == 0.99


def test_wrong_answers_to_the_newest_rows_fail_window_alone(trial: Trial) -> None:
    trial.change(trial.challenger, "settings.json", {"threshold": 2.0})
    report = trial.judge(**but("window"))
    assert failed(report) == ["window"]
    assert "since the champion's snapshot of 2020-01-20" in report.failed[0].reason


def test_too_few_newest_rows_fail_window_alone(trial: Trial) -> None:
    report = trial.judge(window={"minimum": 5000, "rows": 5000})
    assert failed(report) == ["window"]
    assert "too few" in report.failed[0].reason


def test_the_window_is_filled_up_with_the_newest_of_before(trial: Trial) -> None:
    late = messages(["ham", "spam"])
    for since, minimum in (("2020-02-05", 60), ("2020-02-05", 5), ("2099-01-01", 40)):
        lineage = {"params": {"ingest": {"until": since}, "prepare": {"splits": SHARES}}}
        trial.change(trial.champion, "lineage.json", lineage)
        held_out = late[late.split.isin(["test", "golden"])]
        fresh = int((held_out.received >= pd.Timestamp(since, tz="UTC")).sum())
        check = {check.name: check for check in trial.judge(window={"minimum": minimum, "rows": 500}).checks}["window"]
        assert f"the newest {max(fresh, minimum)} labelled rows, {fresh} of them since" in check.reason


def test_ham_taken_for_spam_fails_false_positives_alone(trial: Trial) -> None:
    trial.change(trial.challenger, "settings.json", {"threshold": 0.0})
    assert failed(trial.judge(**but("false_positives"))) == ["false_positives"]


def test_a_source_that_fares_worse_fails_worst_slice_alone(trial: Trial) -> None:
    trial.change(trial.challenger, "settings.json", {"threshold": 0.0})
    report = trial.judge(**but("worst_slice"))
    assert failed(report) == ["worst_slice"]
    assert set(report.failed[0].details) == {"group-0", "group-1"}


def test_no_source_with_enough_rows_fails_worst_slice_alone(trial: Trial) -> None:
    assert failed(trial.judge(worst_slice={"rows": 5000})) == ["worst_slice"]


def test_scores_that_mean_nothing_fail_calibration_alone(trial: Trial) -> None:
    trial.change(trial.challenger, "settings.json", {"temperature": 20.0})
    assert failed(trial.judge()) == ["calibration"]


def test_a_large_release_fails_bytes_alone(trial: Trial) -> None:
    (trial.challenger / "reference.npz").write_bytes(bytes(DEFAULTS["bytes"]["maximum"]))
    trial.change(trial.challenger, "card.json", {})
    assert failed(trial.judge()) == ["bytes"]


@pytest.mark.parametrize("bound", [{"maximum": 1.0}, {"times_champion": 0.01}])
def test_a_slow_release_fails_micros_alone(trial: Trial, bound: dict[str, float]) -> None:
    report = trial.judge(latency_us=bound)
    assert failed(report) == ["latency_us"]
    assert report.failed[0].figure is not None
    assert report.failed[0].figure > 1


def test_a_figure_that_is_none_is_a_failed_check_and_json_holds_no_nan(trial: Trial, tmp_path: Path) -> None:
    frame = messages(["ham", "spam"])
    frame = frame[(frame.split != "golden") | (frame.label == "ham")]
    trial.say(frame)
    report = trial.judge()
    assert failed(report) == ["golden"]
    written = write(report, tmp_path / "gates", 7)
    assert written.name == f"{report.release}-7.json"
    stored = json.loads(written.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {check["name"]: check["figure"] for check in stored["checks"]}["golden"] is None
    assert stored["passed"] is False


def test_a_golden_set_without_a_row_is_no_reason_to_pass(trial: Trial) -> None:
    frame = messages(["ham", "spam"])
    trial.say(frame[frame.split != "golden"])
    assert set(failed(trial.judge())) == {"golden", "false_positives", "worst_slice", "calibration", "latency_us"}


def test_reports_hold_no_text_and_escape_what_they_show(trial: Trial, tmp_path: Path) -> None:
    frame = with_feedback(messages(["ham", "spam"]), 200, 0.2)
    doubted = frame.index[frame.source == "feedback"]
    frame.loc[doubted, ["input", "raw"]] = frame.loc[doubted, ["input", "raw"]] + " marker-of-a-text"
    frame.loc[doubted, "id"] = "<script>" + frame.loc[doubted, "id"]
    trial.say(frame)
    report = trial.judge()
    written = write(report, tmp_path / "gates", 0)
    html = written.with_suffix(".html").read_text()
    assert "refused" in html
    assert "<script>" not in html
    for content in (html, written.read_text(), json.dumps(table(report))):
        assert "marker-of-a-text" not in content
    assert "may be promoted" in page(Report("0123456789ab", None, True, "now", True, [], []))


def test_many_labels_of_which_none_stands_out(tmp_path: Path) -> None:
    labels = ["ham", "news", "spam"]
    student = tmp_path / "student"
    student.mkdir()
    save_student(*fitted_network(made_prepared(labels, 300)), student, opset=20)
    trial = Trial(tmp_path / "world", student, labels, None)
    report = trial.judge()
    assert failed(report) == []
    assert "no label stands out" in {check.name: check for check in report.checks}["false_positives"].reason


def test_a_champion_that_knows_other_labels_is_compared_by_their_names(trial: Trial, tmp_path: Path) -> None:
    trial.change(trial.champion, "settings.json", {"labels": ["spam", "junk"], "positive": "spam"})
    report = trial.judge(**but("golden", margin=0))
    golden = {check.name: check for check in report.checks}["golden"]
    assert golden.passed, "the champion takes its first label for spam, and so ranks upside down"
    assert golden.figure is not None
    assert golden.figure > 0.3


def test_a_refusal_says_what_was_found_and_what_is_allowed() -> None:
    size = Check("bytes", 23_540_765, 2_000_000, False, "bytes of all files in the release")
    assert refusal(size) == "bytes: 23,540,765 against 2,000,000: bytes of all files in the release"
    share = Check("labels", 0.05, 0.03, False, "doubted")
    assert refusal(share) == "labels: 0.0500 against 0.0300: doubted"
    assert refusal(Check("manifest", None, None, False, "was changed")) == "manifest: was changed"
