"""The stage compression: paired differences, fronts, rivals, disagreements, and a page that holds what the JSON holds."""

from __future__ import annotations

from pathlib import Path
from shutil import copy2, copytree
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import yaml

from benchmarks.rival_figures import rival_figures
from benchmarks.speed import load
from tasks.files import read_json, write_json
from tasks.kinds.text_classification.model import Baseline
from tasks.kinds.text_classification.release import SHOWN_CHARACTERS
from tasks.metrics import ranking
from tasks.model.baseline import baseline
from tasks.page import number, percent
from tasks.release.compression import Compression, compression
from tasks.release.disagreement import count, surest, verdicts, who_is_right
from tasks.release.evaluate import Evaluate, evaluate
from tasks.release.fronts import comparable, front, fronts
from tasks.release.scores import judged, read_scores, write_scores
from tasks.release.steps import WHOLE, differences, ratios, steps_along
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_prepared
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
EVALUATE = Evaluate.model_validate(
    PARAMS["evaluate"]
    | {"variants": ["baseline", "student", "student-quantized"], "teacher": "baseline", "resamples": 20, "timing_inputs": 5}
    | {"slices": {"hard": {"sources": ["group-1"]}}}
)
NORMALISER = {"steps": ["unicode", "html", "whitespace"], "redact": [], "characters": 4000}
MARKER = "<script>PLANTEDMARKER</script> & more"
CHOSEN = {"temperature": 1.0, "threshold": 0.5}


def settings(**changes: Any) -> Compression:
    shorter = {
        "path": ["baseline", "student", "student-quantized"],
        "resamples": 100,
        "student": "student-quantized",
        "beside": [],
    }
    return Compression.model_validate(PARAMS["compression"] | {"resamples": 100} | shorter | changes)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, students: tuple[Path, Path], mlflow_store: Path) -> Paths:
    """A project in which the teacher (the baseline) was made to be wrong where the student is right, and the reverse."""
    paths = Paths(tmp_path_factory.mktemp("compression"))
    paths.prepared.parent.mkdir()
    frame = made_prepared(["ham", "spam"], 350, seed=4)
    frame["raw"] = MARKER + " " + frame.raw + " " + "x" * SHOWN_CHARACTERS + " THEEND"
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam", "normaliser": NORMALISER})
    write_json(paths.root / "data/rivals.json", {})
    for student, name in zip(students, ("student", "student-quantized"), strict=True):
        copytree(student, paths.model(name))
    copy2(mlflow_store, paths.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        baseline(Baseline.model_validate(PARAMS["baseline"] | {"C": [10]}), paths)
        evaluate(EVALUATE, paths)
    rows = judged(frame)
    logits = read_scores(rows, paths)
    sure = np.where(rows.label_id.to_numpy()[:, None] == np.arange(2), 8.0, -8.0).astype(np.float32)
    logits["student-quantized"] = sure.copy()
    logits["baseline"] = sure.copy()
    logits["baseline"][rows.index[rows.split == "golden"][:9]] *= -1
    logits["student-quantized"][rows.index[rows.split == "test"][:3]] *= -1
    write_scores(rows, logits, paths)
    return paths


@pytest.fixture
def paths(own_store: None, evaluated: Paths, tmp_path: Path) -> Paths:
    """A copy of it that a test may spoil."""
    for name in ("data", "models", "reports"):
        copytree(evaluated.root / name, tmp_path / name)
    return Paths(tmp_path)


def reported(paths: Paths, **changes: Any) -> tuple[dict[str, Any], str]:
    """(the JSON, the page)"""
    compression(settings(**changes), paths)
    report: dict[str, Any] = read_json(paths.report("compression.json"))
    return report, paths.report("compression.html").read_text()


def made_logits(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float32]:
    """Two labels told apart, not without errors."""
    rng = np.random.default_rng(seed)
    score = np.where(labels == 1, 1.0, -1.0) + rng.normal(0, 1.2, len(labels))
    return np.stack([-score, score], axis=1).astype(np.float32)


def rows_of(count: int) -> pd.DataFrame:
    labels = np.arange(count) % 2
    return pd.DataFrame({"label_id": labels, "group": [f"g{number // 2}" for number in range(count)]})


def stepped(child: npt.NDArray[np.float32], parent: npt.NDArray[np.float32], rows: pd.DataFrame) -> dict[str, Any]:
    variants = {"parent": CHOSEN, "child": CHOSEN}
    found = differences({"step": ("parent", "child")}, {"parent": parent, "child": child}, rows, variants, 1, (300, 1))
    step: dict[str, Any] = found["step"]
    return step


def test_a_planted_loss_is_lost_a_planted_win_is_won() -> None:
    rows = rows_of(600)
    labels = rows.label_id.to_numpy()
    good = made_logits(labels, 1)
    spoiled = good.copy()
    spoiled[::9] *= -1
    lost, won = stepped(spoiled, good, rows), stepped(good, spoiled, rows)
    for metric in ("pr_auc", "f1"):
        assert lost[metric]["verdict"] == "lost"
        assert lost[metric]["interval"][1] < 0
        assert won[metric]["verdict"] == "won"
        assert won[metric]["value"] == -lost[metric]["value"]
    gap = ranking(spoiled, labels, 1)["pr_auc"] - ranking(good, labels, 1)["pr_auc"]
    assert lost["pr_auc"]["value"] == pytest.approx(gap, abs=1e-6)


def test_no_difference_is_not_shown_where_there_is_none() -> None:
    rows = rows_of(600)
    good = made_logits(rows.label_id.to_numpy(), 1)
    for other in (good, 3 * good, good + np.random.default_rng(0).normal(0, 0.02, good.shape).astype(np.float32)):
        step = stepped(other, good, rows)
        assert {step[metric]["verdict"] for metric in step} == {"no difference shown"}
    assert stepped(good, good, rows)["f1"]["interval"] == [0, 0]


def test_what_is_hard_for_both_cancels_out() -> None:
    rows = rows_of(600)
    good = made_logits(rows.label_id.to_numpy(), 1)
    worse = good.copy()
    worse[::60] = -np.abs(worse[::60]) * np.where(rows.label_id.to_numpy()[::60, None] == np.arange(2), 1, -1)
    paired = stepped(worse, good, rows)["f1"]
    independent = stepped(made_logits(rows.label_id.to_numpy(), 2), good, rows)["f1"]
    kernel_sizes = [entry["interval"][1] - entry["interval"][0] for entry in (paired, independent)]
    assert paired["verdict"] == "lost"
    assert kernel_sizes[0] < 0.5 * kernel_sizes[1]


def test_a_split_of_one_label_has_no_verdict() -> None:
    rows = rows_of(60).assign(label_id=0)
    logits = made_logits(rows.label_id.to_numpy(), 1)
    assert stepped(logits, logits, rows)["pr_auc"] == {"value": None, "interval": None, "verdict": "not measured"}


def test_steps_are_those_of_the_path_and_the_whole() -> None:
    variants = {name: {"bytes": size, "latency_us": size / 2} for name, size in (("a", 1000), ("b", 100), ("c", 50), ("d", 10))}
    assert ratios(steps_along(["a", "b"]), variants) == {"a to b": {"times_smaller": 10, "times_faster": 10}}
    found = ratios(steps_along(["a", "b", "c", "d"]), variants)
    assert list(found) == ["a to b", "b to c", "c to d", WHOLE]
    assert found[WHOLE]["times_smaller"] == 100


def test_the_front_holds_those_that_no_other_dominates() -> None:
    points = {"large": (900, 0.95), "good": (100, 0.97), "worse": (120, 0.96), "small": (10, 0.9), "poor": (10, 0.8)}
    assert front(points) == ["small", "good"]
    assert front(points | {"twin": (100, 0.97)}) == ["small", "good", "twin"], "equals do not dominate each other"
    assert front(points | {"all": (1, 1.0)}) == ["all"]
    assert front({}) == []
    models = {
        name: {"bytes": cost, "latency_us": 1000 - cost, "metrics": {"test": {"pr_auc": quality}}}
        for name, (cost, quality) in points.items()
    }
    models["unmeasured"] = {"bytes": 0, "latency_us": 0, "metrics": {"test": {"pr_auc": None}}}
    assert fronts(models, "test", "pr_auc") == {"bytes": ["small", "good"], "latency_us": ["large", "worse", "good"]}


def test_times_of_rivals_are_scaled_by_the_variants_of_both_runs() -> None:
    ours = {name: {"latency_us": latency_us} for name, latency_us in (("a", 10.0), ("b", 200.0), ("c", 40.0))}
    entry = {"bytes": 7, "latency_us": 3.0, "metrics": {"test": {"pr_auc": 0.9, "f1": 0.8}}}
    rivals = {"prepared": "hash", "ours": {"a": 5.0, "b": 100.0, "gone": 1.0}, "models": {"theirs": entry}}
    found, said = comparable(rivals, ours, "hash", ["test"])
    assert found["theirs"]["latency_us"] == 6
    assert "in turns with a, b, by which" in said
    assert comparable(rivals | {"ours": {"gone": 1.0}}, ours, "hash", ["test"])[0] == {}


def test_a_disagreement_is_counted_for_whoever_is_right() -> None:
    labels = np.array([0, 1, 2, 0])
    teacher = verdicts(np.array([[9, 0, 0], [9, 0, 0], [9, 0, 0], [2, 1, 0]], np.float32), CHOSEN, None)
    student = verdicts(np.array([[0, 9, 0], [0, 9, 0], [0, 9, 0], [9, 0, 0]], np.float32), CHOSEN, None)
    right = who_is_right(labels, teacher, student)
    assert right.tolist() == ["teacher", "student", "neither", ""]
    assert count(right) == {"rows": 4, "disagree": 3, "teacher_right": 1, "student_right": 1, "neither_right": 1}


def test_the_surest_come_first_and_a_doubt_of_either_counts() -> None:
    def score(*shares: float) -> npt.NDArray[np.float32]:
        return np.array([[0, np.log(share / (1 - share))] for share in shares], np.float32)

    teacher = verdicts(score(0.9, 0.99, 0.8, 0.1), CHOSEN, 1)
    student = verdicts(score(0.1, 0.45, 0.1, 0.9), CHOSEN, 1)
    right = who_is_right(np.array([1, 1, 1, 1]), teacher, student)
    assert surest(right, teacher, student, 9) == [0, 2, 1, 3]
    assert surest(right, teacher, student, 1) == [0, 3]


def test_the_page_opens_by_itself_and_holds_every_number(paths: Paths) -> None:
    report, page = reported(paths, beside=["student"])
    assert set(report["models"]) == {"baseline", "student", "student-quantized"}
    assert set(report["splits"]) == {"test", "golden", "future"}, "neither valid nor slices"
    assert page.count("<svg") == 2
    for fetched in ("<script", "<link", "<img", "@import", "url(http"):
        assert fetched not in page
    for entry in report["models"].values():
        shown = [f"{entry['bytes']:,}", f"{entry['latency_us']:,.0f}", f"{entry['times_faster']:.1f}"]
        shown += [number(v) for figures in entry["metrics"].values() for v in figures.values()]
        shown += [percent(entry["kept"][split][metric]) for split in report["splits"] for metric in ("pr_auc", "f1")]
        assert not [one for one in shown if f">{one}<" not in page]
    along, beside = ["baseline to student", "student to student-quantized", WHOLE], "student-quantized against student"
    assert set(report["steps"]) == {*along, beside}
    assert report["steps"][beside] == report["steps"]["student to student-quantized"]
    for step in report["steps"].values():
        assert f"<td>{step['times_smaller']:.1f}</td>" in page
        for one in (one for by_metric in step["differences"].values() for one in by_metric.values()):
            shown = f"<small>{one['interval'][0]:+.4f} to {one['interval'][1]:+.4f}</small>"
            assert f'<td>{one["value"]:+.4f}\n{shown}<small class="{one["verdict"]}">{one["verdict"]}</small>' in page
    for split, entry in report["disagreements"].items():
        assert f"<td>{split}</td><td>{entry['rows']:,}</td><td>{entry['disagree']:,}</td>" in page
    assert report["disagreements"]["golden"] | {"rows": 0} == {
        "rows": 0, "disagree": 9, "teacher_right": 0, "student_right": 9, "neither_right": 0,
    }  # fmt: skip
    assert report["disagreements"]["test"]["teacher_right"] == 3


def test_disagreements_are_named_and_hold_no_text(paths: Paths) -> None:
    _, page = reported(paths)
    rows = judged(pd.read_parquet(paths.prepared))
    named = [name for name in rows.id[rows.split == "golden"][:9] if f">{name}<small>" in page]
    assert len(named) == PARAMS["compression"]["examples"], "so many of a side, no more"
    assert all(f">{name}<small>" in page for name in rows.id[rows.split == "test"][:3])
    assert "PLANTEDMARKER" not in page
    assert "PLANTEDMARKER" not in paths.report("compression.json").read_text()
    parent = read_json(paths.runs / "compression.json")["pipeline"]
    told = {item.path for item in mlflow.MlflowClient().list_artifacts(parent)}
    assert {"compression.html", "compression.json"} <= told


def test_texts_are_shown_where_asked_for_escaped_cut_and_not_told_to_mlflow(paths: Paths) -> None:
    _, page = reported(paths, inputs=True)
    assert "&lt;script&gt;PLANTEDMARKER&lt;/script&gt; &amp; more" in page
    assert "<script" not in page
    assert "THEEND" not in page
    assert "PLANTEDMARKER" not in paths.report("compression.json").read_text()
    parent = read_json(paths.runs / "compression.json")["pipeline"]
    told = {item.path for item in mlflow.MlflowClient().list_artifacts(parent)}
    assert "compression.html" not in told


def test_a_rival_stands_beside_our_variants_with_figures_of_the_same_kind(paths: Paths) -> None:
    rival = copytree(paths.model("student"), paths.root / "rival")
    ours = [paths.model("student"), paths.model("student-quantized")]
    found = rival_figures({folder: load(folder, 1) for folder in [*ours, rival]}, [rival], EVALUATE, paths)
    write_json(paths.root / "data/rivals.json", found)
    report, page = reported(paths)
    entry = report["models"]["rival"]
    assert entry["rival"]
    assert entry["metrics"] == report["models"]["student"]["metrics"], "the same model in another folder"
    assert entry["bytes"] == report["models"]["student"]["bytes"]
    assert entry["kept"] == report["models"]["student"]["kept"]
    assert "in turns with student, student-quantized, by which" in report["rivals"]
    assert "<td>rival<small>rival</small></td>" in page


def test_rivals_that_were_measured_on_other_data_are_left_out_and_told(paths: Paths) -> None:
    assert "No rival was measured" in reported(paths)[1]
    entry = {"bytes": 1, "latency_us": 1.0, "metrics": {}}
    write_json(paths.root / "data/rivals.json", {"prepared": "0" * 64, "ours": {"student": 1.0}, "models": {"fasttext": entry}})
    report, page = reported(paths)
    assert "fasttext" not in report["models"]
    assert "Rivals (fasttext) are left out: they were measured on other data (000000000000)." in page
    write_json(paths.root / "data/rivals.json", {"models": {}})
    with pytest.raises(StageError, match=r"rivals\.json: not what python -m benchmarks\.speed --rivals writes"):
        reported(paths)
    with pytest.raises(StageError, match=r"compression\.rivals = absent\.json: cannot be read .* means no rivals"):
        reported(paths, rivals="absent.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"path": ["baseline", "student-xxl"]}, r"compression\.path: 'student-xxl': evaluate knows baseline, student"),
        ({"student": "student-xxl"}, r"compression\.student: 'student-xxl': evaluate knows"),
        ({"beside": ["student-xxl"]}, r"compression\.beside: 'student-xxl': evaluate knows"),
        ({"student": "baseline"}, r"compression\.student = 'baseline': models/baseline holds no student"),
    ],
)
def test_a_name_that_evaluate_does_not_know_is_one_line(paths: Paths, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(StageError, match=says):
        reported(paths, **changes)
    assert not paths.report("compression.html").exists()


def test_scores_of_other_rows_are_refused(paths: Paths) -> None:
    frame = pd.read_parquet(paths.prepared)
    frame.iloc[:-1].to_parquet(paths.prepared)
    with pytest.raises(StageError, match=r"scores\.npz: holds the scores of other rows .* run evaluate again"):
        reported(paths)
