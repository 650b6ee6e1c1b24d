"""evaluate, package and register on made models: honest figures, whole releases, a story in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from service.decision import softmax
from service.kinds.text_classification.token_windows import TokenWindows
from service.kinds.text_classification.tokenizer import known_words
from service.release import Release, ReleaseError, verify
from tasks.compress.export import Export, export
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds.text_classification.compress.transformer import ThinStudent
from tasks.kinds.text_classification.model import Baseline
from tasks.kinds.text_classification.model.teacher import Teacher, load_encoder, save_teacher
from tasks.kinds.text_classification.release import Package, probe_texts
from tasks.metrics import bootstrap_weights, resampled_ranking
from tasks.model.baseline import baseline
from tasks.model.variants import load_variant
from tasks.release.bento import with_packages
from tasks.release.evaluate import Evaluate, evaluate, slice_rows
from tasks.release.evaluate import Slice as SliceOf
from tasks.release.package import package
from tasks.release.register import register
from tasks.release.scores import judged, read_scores, write_scores
from tasks.release.table import evaluation_rows
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_prepared
from tests.imports import MAIL, ROOT

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
EVALUATE = PARAMS["evaluate"] | {
    "variants": ["baseline", "student", "student-quantized"], "teacher": "student", "resamples": 50, "timing_inputs": 5,
    "slices": {"hard": {"sources": ["group-1"]}, "absent": {"sources": ["nobody"]}},
}  # fmt: skip
PACKAGE = PARAMS["package"] | {"among": ["student-quantized", "student"]}
NORMALISER = {"steps": ["unicode", "html", "whitespace"], "redact": [], "characters": 4000}


@pytest.fixture
def paths(own_store: None, tmp_path: Path, students: tuple[Path, Path]) -> Paths:
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    frame = made_prepared(["ham", "spam"], 350, seed=4)
    frame.to_parquet(paths.prepared)
    frame.to_parquet(paths.corpus)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam", "normaliser": NORMALISER})
    for student, name in zip(students, ("student", "student-quantized"), strict=True):
        copytree(student, paths.model(name))
    baseline(Baseline.model_validate(PARAMS["baseline"] | {"C": [1, 10]}), paths)
    return paths


def evaluated(paths: Paths) -> dict[str, Any]:
    evaluate(Evaluate.model_validate(EVALUATE), paths)
    report: dict[str, Any] = read_json(paths.report("evaluation.json"))
    return report


def test_every_variant_has_every_figure_on_every_split_with_an_interval(paths: Paths) -> None:
    report = evaluated(paths)
    frame = pd.read_parquet(paths.prepared)
    assert set(report["variants"]) == {"baseline", "student", "student-quantized"}
    assert set(report["splits"]) == {"valid", "test", "golden", "future", "hard"}, "a slice with no row is left out"
    for name, entry in report["variants"].items():
        assert entry["bytes"] == sum(f.stat().st_size for f in paths.model(name).iterdir())
        assert entry["parameters"] > 0
        assert entry["latency_us"] > 0
        for split in report["splits"]:
            for metric in ("roc_auc", "pr_auc", "f1", "fpr_at_recall", "calibration_error"):
                low, high = entry["intervals"][split][metric]
                assert low <= high
                assert 0 <= entry["metrics"][split][metric] <= 1
    test = frame[frame.split == "test"]
    logits = load_variant(paths.model("student"), 1).logits(list(test.input))
    found = resampled_ranking(logits, test.label_id.to_numpy(), np.ones((1, len(test))), 1, 0.97)["pr_auc"][0]
    assert report["variants"]["student"]["metrics"]["test"]["pr_auc"] == pytest.approx(found, abs=1e-6)


def test_threshold_and_temperature_are_chosen_on_valid_alone(paths: Paths) -> None:
    before = evaluated(paths)
    frame = pd.read_parquet(paths.prepared)
    held_out = frame.split.isin(["test", "golden", "future"])
    frame.loc[held_out, "label_id"] = 1 - frame.label_id[held_out]
    frame.to_parquet(paths.prepared)
    after = evaluated(paths)
    for name, entry in before["variants"].items():
        assert entry["threshold"] == after["variants"][name]["threshold"]
        assert entry["temperature"] == after["variants"][name]["temperature"]
        assert entry["metrics"]["valid"] == after["variants"][name]["metrics"]["valid"]
        assert entry["metrics"]["test"] != after["variants"][name]["metrics"]["test"]


def test_a_slice_is_its_own_rows_against_all_of_the_other_labels() -> None:
    frame = made_prepared(["ham", "spam"], 140)
    frame["source"] = np.where((frame.label == "ham") & (frame.index % 3 == 0), "hard-ham", frame.label)
    part = slice_rows(frame, SliceOf(sources=["hard-ham"]))
    assert set(part.split) == {"test", "golden", "future"}
    assert set(part.source[part.label == "ham"]) == {"hard-ham"}
    assert (part.label == "spam").sum() == ((frame.label == "spam") & frame.split.isin(["test", "golden", "future"])).sum()


def test_the_page_needs_no_network_and_shows_every_variant(paths: Paths) -> None:
    evaluated(paths)
    page = paths.report("evaluation.html").read_text()
    assert page.count("<svg") == 3
    assert "student-quantized" in page
    fastest = read_json(paths.report("evaluation.json"))["fastest_teacher"]
    assert fastest in ("student", "student-quantized"), "the teacher here is the student"
    assert f"times faster than {fastest}<" in page
    for fetched in ("<script", "<link", "<img", "@import", "url(http"):
        assert fetched not in page
    curves = pd.read_csv(paths.report("precision_recall.csv"))
    assert set(curves.columns) == {"variant", "split", "recall", "precision"}
    assert curves.precision.between(0, 1).all()


def test_resamples_are_of_groups(paths: Paths) -> None:
    frame = pd.read_parquet(paths.prepared)
    alone = evaluated(paths)["variants"]["student"]["intervals"]["test"]["calibration_error"]
    frame.assign(group=[f"g{number % 4}" for number in range(len(frame))]).to_parquet(paths.prepared)
    assert evaluated(paths)["variants"]["student"]["intervals"]["test"]["calibration_error"] != alone
    assert bootstrap_weights(np.array(["a"] * 5), 3, 1).tolist() == [[1.0] * 5] * 3


def packaged(paths: Paths, **changes: Any) -> Release:
    evaluated(paths)
    (paths.root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    package(Package.model_validate(PACKAGE | changes), paths)
    return Release(paths.release)


def test_a_release_answers_as_the_model_it_was_made_of(paths: Paths) -> None:
    release = packaged(paths)
    frame = pd.read_parquet(paths.prepared)
    texts = list(frame.raw[:40])
    entry = read_json(paths.report("evaluation.json"))["variants"]["student-quantized"]
    logits = load_variant(paths.model("student-quantized"), 1).logits(texts) / entry["temperature"]
    expected = softmax(logits)[:, 1]
    answers = release.answer(texts)
    assert [answer.score for answer in answers] == pytest.approx(list(expected), abs=1e-5)
    assert [answer.label == "spam" for answer in answers] == [score >= entry["threshold"] for score in expected]


def test_a_release_says_where_it_came_from_and_holds_no_row(paths: Paths) -> None:
    frame = pd.read_parquet(paths.prepared)
    frame["raw"] = frame.raw + " PLANTEDMARKER"
    frame["input"] = frame.input + " PLANTEDMARKER"
    frame.to_parquet(paths.prepared)
    packaged(paths)
    lineage = read_json(paths.release / "lineage.json")
    assert lineage["params"] == PARAMS
    assert set(lineage["mlflow"]) == {"baseline", "evaluate"}
    assert len(lineage["data"]["prepared.parquet"]) == 64
    assert lineage["packages"]["onnxruntime"]
    for path in paths.release.rglob("*"):
        assert path.is_dir() or b"PLANTEDMARKER" not in path.read_bytes(), path
    reference = np.load(paths.release / "reference.npz")
    held_out = frame.split.isin(["valid", "test", "golden"]).sum()
    assert reference["descriptors"].shape == (held_out, len(reference["names"]))
    assert reference["features"].shape == (held_out, 8)
    assert len(reference["probabilities"]) == len(reference["label_ids"]) == held_out


def test_probes_are_words_that_many_messages_hold_and_the_same_for_the_same_seed() -> None:
    messages = [f"alpha beta gamma name{number}" for number in range(10)]
    texts = probe_texts(messages, 5, 10, seed=1)
    assert texts == probe_texts(messages, 5, 10, seed=1) != probe_texts(messages, 5, 10, seed=2)
    assert {word for text in texts for word in text.split()} <= {"alpha", "beta", "gamma"}
    with pytest.raises(StageError, match="no word stands in 10 of 9 texts"):
        probe_texts(messages[:9], 5, 10, seed=1)


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("teacher-xxl", "neither evaluated, nor a folder of models/"),
        ("baseline", "its format is 'baseline'; the service runs student and onnx-transformer"),
    ],
)
def test_only_a_student_that_was_evaluated_is_packaged(paths: Paths, variant: str, says: str) -> None:
    with pytest.raises(StageError, match=says):
        packaged(paths, among=[variant, "student"], margin=1, largest_loss=1)
    assert not paths.release.exists()


def test_a_release_is_chosen_by_a_rule_that_its_card_tells(paths: Paths) -> None:
    packaged(paths)
    card = read_json(paths.release / "card.json")
    assert (card["variant"], card["fallback"]) == ("student-quantized", "student")
    rule = card["chosen_by"]
    assert "the first of among that is good enough" in rule.pop("rule")
    assert rule == {name: PACKAGE[name] for name in ("among", "margin", "largest_loss", "confidence", "resamples", "seed")}
    assert card["passed_over"] == []
    assert [candidate["variant"] for candidate in card["candidates"]] == PACKAGE["among"]
    assert set(card["figures"]) == {"student-quantized", "student", "baseline"}
    packaged(paths, among=["student"])
    card = read_json(paths.release / "card.json")
    assert (card["variant"], card["fallback"]) == ("student", None)
    assert (paths.release / "model/model.onnx").read_bytes() == (paths.model("student") / "model.onnx").read_bytes()
    earlier = read_json(paths.release / "manifest.json")["id"]
    frame = pd.read_parquet(paths.prepared)
    frame.loc[frame.split == "valid", "label_id"] = 0  # no PR-AUC, so nothing is known to be good enough
    frame.to_parquet(paths.prepared)
    with pytest.raises(StageError, match="none is good enough; student-onnx as the last always is"):
        packaged(paths, among=["student-quantized"])
    assert read_json(paths.release / "manifest.json")["id"] == earlier
    packaged(paths)
    card = read_json(paths.release / "card.json")
    assert (card["variant"], card["fallback"]) == ("student", None), "what all are held against always is good enough"
    [refused] = card["passed_over"]
    assert (refused["variant"], refused["difference"], refused["interval"]) == ("student-quantized", None, None)
    assert "too small" in refused["reason"]


@pytest.fixture
def exported_teacher(paths: Paths, fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> Paths:
    """A project whose teacher is a transformer, exported; the scores say that it is good, and its students are not."""
    copytree(fine_tuned, paths.model("teacher"))
    frame = pd.read_parquet(paths.prepared)
    with paths.logits.open("wb") as file:
        said = load_variant(paths.model("teacher"), 1).logits(list(frame.input))
        np.savez(file, ids=frame.id.to_numpy(dtype=str), logits=said)
    export(Export.model_validate(PARAMS["export"] | {"parity_inputs": 8}), paths)
    names = ["teacher", "teacher-int8", "student-quantized"]
    evaluate(Evaluate.model_validate(EVALUATE | {"variants": names, "teacher": "teacher"}), paths)
    rows = judged(pd.read_parquet(paths.prepared))
    good = read_scores(rows, paths)["student-quantized"]
    write_scores(rows, {"teacher": good, "teacher-int8": good, "student-quantized": -good}, paths)
    (paths.root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    capsys.readouterr()
    return paths


AMONG_ALL = ["student-quantized", "teacher-int8", "teacher-onnx"]


def test_where_no_student_is_good_enough_the_int8_teacher_is_released_and_the_card_says_why(
    exported_teacher: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    package(Package.model_validate(PACKAGE | {"among": AMONG_ALL}), exported_teacher)
    release = Release(exported_teacher.release)
    assert (release.card["variant"], release.card["fallback"]) == ("teacher-int8", "teacher-onnx")
    [refused] = release.card["passed_over"]
    assert refused["variant"] == "student-quantized"
    low, high = refused["interval"]
    assert low <= refused["difference"] <= high < -PACKAGE["margin"]
    assert set(release.card["figures"]) == {"teacher-int8", "teacher-onnx", "teacher"}
    *_, reason, last = capsys.readouterr().out.strip().splitlines()
    assert reason == f"student-quantized: {refused['reason']}"
    assert last.startswith(f"release {release.id}: teacher-int8, fallback teacher-onnx; ")
    assert f"not good enough: student-quantized ({refused['difference']:+.4f} [" in last
    [answer] = release.answer(["kernel patch"])
    assert (answer.label == "spam") == (answer.score >= release.card["threshold"])


def test_a_form_of_the_teacher_that_was_not_evaluated_is_judged_on_valid_when_it_is_needed(
    exported_teacher: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = exported_teacher
    report = read_json(paths.report("evaluation.json"))
    for name in ("variants", "against_teacher"):
        del report[name]["teacher-int8"]
    write_json(paths.report("evaluation.json"), report)
    rows = judged(pd.read_parquet(paths.prepared))
    stored = read_scores(rows, paths)
    logits = load_variant(paths.model("teacher"), 1).logits(list(rows.input))
    write_scores(rows, {"teacher": logits, "student-quantized": stored["student-quantized"]}, paths)
    package(Package.model_validate(PACKAGE | {"among": AMONG_ALL, "largest_loss": 1}), paths)
    card = Release(paths.release).card
    assert (card["variant"], card["fallback"]) == ("teacher-int8", "teacher-onnx")
    assert "teacher-int8 is evaluated on valid" in capsys.readouterr().out
    assert list(card["figures"]["teacher-int8"]["metrics"]) == ["valid"], "on nothing that it was not asked about"
    assert card["against_teacher"]["times_faster"] is None
    assert list(card["against_teacher"]["kept"]) == ["valid"]
    rmtree(paths.model("teacher-int8"))
    with pytest.raises(StageError, match=r"package\.among: 'teacher-int8': neither evaluated, nor a folder of models/"):
        package(Package.model_validate(PACKAGE | {"among": AMONG_ALL}), paths)


def test_the_exported_teacher_is_released_where_nothing_else_is_good_enough_though_it_was_not_evaluated(
    exported_teacher: Paths,
) -> None:
    paths = exported_teacher
    rows = judged(pd.read_parquet(paths.prepared))
    logits = read_scores(rows, paths)
    write_scores(rows, logits | {"teacher-int8": logits["student-quantized"]}, paths)
    package(Package.model_validate(PACKAGE | {"among": AMONG_ALL}), paths)
    release, entry = Release(paths.release), read_json(paths.report("evaluation.json"))["variants"]["teacher"]
    assert (release.card["variant"], release.card["fallback"]) == ("teacher-onnx", None)
    assert [refused["variant"] for refused in release.card["passed_over"]] == AMONG_ALL[:2]
    assert (release.card["threshold"], release.temperature) == (entry["threshold"], entry["temperature"])
    figures = release.card["figures"]["teacher-onnx"]
    assert figures["metrics"] == entry["metrics"]
    assert figures["bytes"] == folder_bytes(paths.model("teacher-onnx")) != entry["bytes"]
    assert "latency_us" not in figures, "nobody has measured its time"
    assert release.card["against_teacher"]["times_smaller"] == round(entry["bytes"] / figures["bytes"], 2)
    texts = list(pd.read_parquet(paths.prepared).raw[:5])
    teacher = softmax(
        load_variant(paths.model("teacher"), 1).logits([release.preprocess(text) for text in texts]), release.temperature
    )
    assert [answer.score for answer in release.answer(texts)] == pytest.approx(teacher[:, 1], abs=0.01)  # torch: in bfloat16


def test_a_transformer_can_be_the_release_and_its_bento_has_its_tokenizer(paths: Paths, tiny_teacher: Path) -> None:
    torch.manual_seed(0)
    encoder, tokenizer = load_encoder(str(tiny_teacher))
    save_teacher(Teacher(encoder, 2, 0.0), tokenizer, paths.model("teacher"), TokenWindows(16, 2))
    thin = ThinStudent(paths.model("teacher"), [0], known_words(list(pd.read_parquet(paths.prepared).input), 1, 10))
    rmtree(paths.model("student"))
    paths.model("student").mkdir()
    thin.save(paths.model("student"), opset=20)
    release = packaged(paths, among=["student"])
    texts = list(pd.read_parquet(paths.prepared).raw[:5])
    assert [answer.score for answer in release.answer(texts)] == pytest.approx(
        softmax(load_variant(paths.model("student"), 1).logits(texts), release.temperature)[:, 1], abs=1e-5
    )
    assert np.load(paths.release / "reference.npz")["features"].shape[1] == 0
    packages = packed_packages(paths)
    assert any(name.startswith("tokenizers==") for name in packages)
    assert any(name.startswith("selectolax==") for name in packages)
    (paths.release / "model/variant.json").write_text('{"kind": "text_classification", "format": "tfidf"}')
    with pytest.raises(ReleaseError, match="format is 'tfidf'; the service runs student and onnx-transformer"):
        packed_packages(paths)


def packed_packages(paths: Paths) -> list[str]:
    """What the Bento of the release installs; those of every kind are among them."""
    for name in ("bentofile.yaml", "constraints.txt"):
        (paths.root / name).write_text((ROOT / name).read_text())
    packages: list[str] = with_packages(paths)["python"]["packages"]
    assert set(packages) > set(yaml.safe_load((ROOT / "bentofile.yaml").read_text())["python"]["packages"])
    return packages


def test_the_bento_of_a_small_student_has_no_package_that_it_does_not_need(paths: Paths) -> None:
    packaged(paths)
    assert not any(name.startswith(("tokenizers", "pillow")) for name in packed_packages(paths))


def test_register_makes_one_version_with_a_signature_and_tells_the_story(paths: Paths) -> None:
    packaged(paths)
    copytree(Path(__file__).parents[2] / "service", paths.root / "service")
    assert register(paths) == ("1", True)
    assert register(paths) == ("1", False)
    release = verify(paths.release)
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("restill", "challenger")
    assert version.tags["release"] == release
    model = mlflow.pyfunc.load_model("models:/restill@challenger")
    assert model.metadata.signature.inputs.to_dict()[0]["name"] == "input"
    answers = model.predict(pd.DataFrame({"input": ["winner prize money free cash", "kernel patch review"]}))
    assert answers.label.tolist() == ["spam", "ham"]
    assert set(answers.release) == {release}
    parent = client.get_run(read_json(paths.runs / "evaluate.json")["pipeline"])
    assert release in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["student-quantized/bytes"] > 0
    assert parent.info.run_name.endswith(f", released {release}")
    report, variant = read_json(paths.report("evaluation.json")), read_json(paths.release / "card.json")["variant"]
    assert parent.data.metrics["4_pr_auc_test"] == report["variants"][variant]["metrics"]["test"]["pr_auc"]
    assert parent.data.metrics["2_times_smaller"] == report["against_teacher"][variant]["times_smaller"]
    assert "evaluation.html" in {item.path for item in client.list_artifacts(parent.info.run_id)}
    children = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_name for run in children} == {"baseline", "evaluate"}
    manifest = json.loads((paths.release / "manifest.json").read_text())
    assert manifest["id"] == release


def test_going_back_to_an_earlier_release_moves_the_alias_back(paths: Paths) -> None:
    packaged(paths)
    copytree(Path(__file__).parents[2] / "service", paths.root / "service")
    register(paths)
    earlier = copytree(paths.release, paths.root / "earlier")
    packaged(paths, seed=2)
    assert register(paths) == ("2", True)
    rmtree(paths.release)
    copytree(earlier, paths.release)
    assert register(paths) == ("1", False)
    assert str(mlflow.MlflowClient().get_model_version_by_alias("restill", "challenger").version) == "1"


def test_a_release_whose_runs_are_gone_is_registered_all_the_same(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(paths)
    copytree(Path(__file__).parents[2] / "service", paths.root / "service")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{paths.root}/another.db")
    assert register(paths) == ("1", True)


def test_a_future_of_one_label_has_dashes_and_no_crash(paths: Paths) -> None:
    frame = pd.read_parquet(paths.prepared)
    frame[(frame.split != "future") | (frame.label == "ham")].to_parquet(paths.prepared)
    report = evaluated(paths)
    assert report["variants"]["student"]["metrics"]["future"]["pr_auc"] is None
    assert report["against_teacher"]["baseline"]["kept"]["future"]["pr_auc"] is None
    assert evaluation_rows(report)[0]["PR-AUC future"] == "-"
    with pytest.raises(StageError, match=r"is none of evaluate\.variants"):
        evaluate(Evaluate.model_validate(EVALUATE | {"teacher": "nobody"}), paths)
