"""The compression path: each step makes what it says, and its gate fails when it should."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml

from service.kinds.text_classification.scorer import Student
from service.kinds.text_classification.tokenizer import pad
from tasks.compress.distill import distill
from tasks.compress.distillation import UNLABELLED, DistillLoss, distillation_loss
from tasks.compress.parity import ScoreLimits, compare, enforce
from tasks.compress.prune import prune
from tasks.compress.quantize import quantize
from tasks.compress.settings import Prune
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds import compress_part
from tasks.kinds.text_classification.compress import Distill, Quantize
from tasks.kinds.text_classification.compress.families import families
from tasks.metrics import ranking
from tasks.stage import Paths, StageError
from tests.conftest import KIND, fitted_network, made_prepared
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
LIMITS = ScoreLimits(largest=0.1, mean=0.01, disagreement_rate=0.01)


def distill_loss(teacher_share: float) -> DistillLoss:
    return DistillLoss(temperature=2.0, teacher_share=teacher_share)


def test_the_loss_is_hinton_s() -> None:
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    hard = torch.nn.functional.cross_entropy(student, labels)
    ones = torch.ones(6)
    assert distillation_loss(student, teacher, labels, ones, distill_loss(0.0)) == pytest.approx(hard)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    soft = 4 * (p * (p.log() - q.log())).sum(1).mean()
    assert distillation_loss(student, teacher, labels, ones, distill_loss(1.0)).item() == pytest.approx(soft.item(), rel=1e-5)
    assert distillation_loss(teacher, teacher, labels, ones, distill_loss(1.0)).item() == pytest.approx(0, abs=1e-6)
    unheard = torch.full((6,), UNLABELLED)
    whole = distillation_loss(student, teacher, unheard, ones, distill_loss(0.3)).item()
    assert whole == pytest.approx(0.3 * soft.item(), rel=1e-5), "of what has no label the teacher alone is heard"


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_a_row_of_weight_three_counts_as_three_rows(share: float) -> None:
    student, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    often = [0, 1, 2, 2, 2, 3]
    repeated = distillation_loss(student[often], teacher[often], labels[often], torch.ones(6), distill_loss(share))
    weighted = distillation_loss(student, teacher, labels, weights / weights.mean(), distill_loss(share))
    assert weighted.item() == pytest.approx(repeated.item(), rel=1e-5)


def test_int8_is_smaller_agrees_and_loads_without_torch(students: tuple[Path, Path]) -> None:
    full, small = students
    texts = list(made_prepared(["ham", "spam"], 100, seed=9).input)
    assert (small / "model.onnx").stat().st_size < 0.6 * (full / "model.onnx").stat().st_size
    enforce(compare(Student(full).logits(texts), Student(small).logits(texts)), LIMITS, "quantize.parity")
    kinds = {tensor.data_type for tensor in onnx.load(small / "model.onnx").graph.initializer if len(tensor.dims) == 2}
    assert onnx.TensorProto.INT8 in kinds
    assert onnx.TensorProto.FLOAT not in kinds, "no weight matrix was left in float32"


def test_features_are_what_the_last_layers_see_and_asking_for_them_changes_no_logit(students: tuple[Path, Path]) -> None:
    frame = made_prepared(["ham", "spam"], 100, seed=9)
    texts = [*frame.input, ""]
    for folder in students:
        student = Student(folder)
        logits, features = student.outputs(texts)
        assert features.shape == (101, 8)
        assert features.dtype == np.float32
        assert np.array_equal(logits, student.logits(texts))
        assert not features[-1].any(), "a text without words"
    network, tokenizer = fitted_network(made_prepared(["ham", "spam"], 300))
    rows = torch.from_numpy(pad([tokenizer.encode(text) for text in texts[:30]]))
    with torch.inference_mode():
        assert Student(students[0]).outputs(texts[:30])[1] == pytest.approx(network.pool(rows).numpy(), abs=1e-5)


def test_a_student_of_an_older_release_has_no_features_and_still_answers(students: tuple[Path, Path], tmp_path: Path) -> None:
    from shutil import copytree

    folder = copytree(students[1], tmp_path / "older")
    model = onnx.load(folder / "model.onnx")
    del model.graph.output[1]
    onnx.save(model, folder / "model.onnx")
    logits, features = Student(folder).outputs(["winner", "kernel"])
    assert features.shape == (2, 0)
    assert np.array_equal(logits, Student(students[1]).logits(["winner", "kernel"]))


def test_the_exported_file_holds_no_path_of_this_machine(students: tuple[Path, Path]) -> None:
    for folder in students:
        assert str(Path(__file__).parents[2]).encode() not in (folder / "model.onnx").read_bytes()
        assert b"site-packages" not in (folder / "model.onnx").read_bytes()


def test_the_student_knows_unseen_texts_and_small_changes_keep_the_label(students: tuple[Path, Path]) -> None:
    frame = made_prepared(["ham", "spam"], 200, seed=5)
    student = Student(students[1])
    logits = student.logits(list(frame.input))
    assert ranking(logits, frame.label_id.to_numpy())["pr_auc"] > 0.95
    sure = frame[np.abs(logits[:, 1] - logits[:, 0]) > 2].head(50)
    expected = student.logits(list(sure.input)).argmax(axis=1)
    for change in (str.upper, lambda t: f"  {t}\n\n", lambda t: t.replace(" the ", " this ", 1)):
        changed = student.logits([change(text) for text in sure.input]).argmax(axis=1)
        assert (changed == expected).mean() > 0.97


def test_a_tokenizer_that_reads_other_features_is_seen_by_parity(students: tuple[Path, Path], tmp_path: Path) -> None:
    from shutil import copytree

    broken = copytree(students[0], tmp_path / "broken")
    write_json(broken / "variant.json", read_json(broken / "variant.json") | {"bits": 10})
    texts = list(made_prepared(["ham", "spam"], 100, seed=9).input)
    with pytest.raises(StageError, match="does not agree with its parent"):
        enforce(compare(Student(students[0]).logits(texts), Student(broken).logits(texts)), LIMITS, "quantize.parity")


@pytest.fixture
def paths(own_store: None, tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    return paths


DESCENT = {"epochs": 60, "batch_size": 32, "learning_rate": 0.02, "weight_decay": 0.01}
SMALL = {
    "family": "bag",
    "bits": 11,
    "char_ngrams": [4],
    "known_bits": 12,
    "min_documents": 1,
    "bag": {"bits": None, "dimensions": 8, "hidden": 16, "row_dropout": 0.2, "embeddings": "random", "sgd": DESCENT},
    "cnn": {"words": 30, "dimensions": 8, "kernel_sizes": [1, 2], "filters": 8, "dropout": 0.1, "embeddings": "random"}
    | {"sgd": DESCENT | {"epochs": 15}},
}
"""Students that learn made texts in a second or two."""


def distilled(paths: Paths, labels: list[str], **changes: Any) -> pd.DataFrame:
    frame = made_prepared(labels, 350)
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": sorted(labels), "positive": "spam" if len(labels) == 2 else None})
    seen = frame[frame.split.isin(["train", "valid"])]
    logits = np.eye(len(labels), dtype=np.float32)[seen.label_id] * 4
    with paths.logits.open("wb") as file:
        np.savez(file, ids=seen.id.to_numpy(dtype=str), logits=logits)
    distill(Distill.model_validate(PARAMS["distill"] | SMALL | changes), paths)
    return frame


@pytest.mark.parametrize("family", ["linear", "bag", "cnn"])
@pytest.mark.parametrize("labels", [["ham", "spam"], ["ham", "news", "spam"]])
def test_the_stages_distill_prune_and_quantize(paths: Paths, labels: list[str], family: str) -> None:
    wide = PARAMS["distill"]["parity"] | {
        "mean": 0.2,
        "disagreement_rate": 0.2,
        "threshold_disagreement": 0.2,
        "worst_slice": 0.2,
    }
    frame = distilled(paths, labels, family=family, parity=wide)
    prune(
        Prune.model_validate(
            PARAMS["prune"] | {"recovery": dict.fromkeys(PARAMS["prune"]["recovery"], 5), "margin": 1, "parity": wide}
        ),
        paths,
    )
    quantize(Quantize.model_validate(PARAMS["quantize"] | {"parity": wide}), paths)
    test = frame[frame.split == "test"]
    for variant in ("student", "student-pruned", "student-quantized"):
        assert ranking(Student(paths.model(variant)).logits(list(test.input)), test.label_id.to_numpy())["pr_auc"] > 0.9
    report = read_json(paths.report("quantize.json"))
    assert report["bytes"] == {
        "before": folder_bytes(paths.model("student-pruned")),
        "after": folder_bytes(paths.model("student-quantized")),
    }
    assert read_json(paths.report("distill.json"))["export"]["disagreement_rate"] == 0
    for stage in ("distill", "prune", "quantize"):
        limits = wide
        found = read_json(paths.report(f"{stage}.json"))["parity"]
        assert set(found) == set(limits) - {"slice_rows"}
        assert all(value <= limits[name] for name, value in found.items())


def test_quantize_stands_behind_the_step_that_its_parameter_names(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"])
    quantize(Quantize.model_validate(PARAMS["quantize"] | {"parent": "student"}), paths)
    assert read_json(paths.report("quantize.json"))["bytes"]["before"] == folder_bytes(paths.model("student"))
    shutil.rmtree(paths.model("student"))
    write_json(paths.model("teacher") / "variant.json", {"kind": KIND, "format": "teacher"})
    for parent in ("student", "teacher"):
        with pytest.raises(StageError, match=f"quantize.parent = '{parent}': models/{parent} holds no student"):
            quantize(Quantize.model_validate(PARAMS["quantize"] | {"parent": parent}), paths)


def test_distilling_twice_gives_the_same_files(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"])
    first = {path.name: path.read_bytes() for path in paths.model("student").iterdir()}
    distilled(paths, ["ham", "spam"])
    assert {path.name: path.read_bytes() for path in paths.model("student").iterdir()} == first


def test_a_student_that_does_not_follow_its_teacher_says_in_what(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    distilled(
        paths,
        ["ham", "spam"],
        family="linear",
        linear={"penalty": 1e4, "max_iter": 1},
        parity=PARAMS["distill"]["parity"] | {"mean": 1, "disagreement_rate": 0},
    )
    over = read_json(paths.report("distill.json"))["over"]
    assert any(
        line.startswith("disagreement_rate = ") and "(params.yaml: distill.parity.disagreement_rate)" in line for line in over
    )
    assert f"does not agree with its parent: {over[0]}" in capsys.readouterr().out


def hopeless(block: Any) -> dict[str, Any]:
    """A descent that learns nothing."""
    return block | {"sgd": block["sgd"] | {"epochs": 1, "learning_rate": 1e-9}}


def test_auto_tries_one_family_after_the_other_until_one_is_near_enough(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    cnn = PARAMS["distill"]["cnn"] | {"embeddings": "random"}
    cnn |= {"sgd": {"epochs": 20, "batch_size": 32, "learning_rate": 0.02, "weight_decay": 0.0}}
    auto = {"linear_labels": 1, "margin": 0.01}
    distilled(paths, ["ham", "spam"], family="auto", auto=auto, bag=hopeless(SMALL["bag"]), cnn=cnn)
    report = read_json(paths.report("distill.json"))
    assert [one["family"] for one in report["tried"]] == ["bag", "cnn"], "the transformer was not asked for"
    assert report["family"] == "cnn"
    out = capsys.readouterr().out
    assert re.search(r"bag: about \d+ s\nbag: PR-AUC on valid 0\.\d+, 0\.\d+ below the teacher's\ncnn: about \d+ s", out)
    network = read_json(paths.model("student-network") / "settings.json")
    assert network["family"] == "cnn", "a step that goes on training knows what it is"


def test_auto_keeps_the_nearest_where_none_is_near_enough(paths: Paths, fine_tuned: Path) -> None:
    shutil.copytree(fine_tuned, paths.model("teacher"))
    blocks = {name: hopeless(SMALL[name]) for name in ("bag", "cnn")}
    blocks["transformer"] = hopeless(PARAMS["distill"]["transformer"])
    auto = {"linear_labels": 1, "margin": 0.0}
    distilled(paths, ["ham", "spam"], family="auto", auto=auto, **blocks)
    report = read_json(paths.report("distill.json"))
    scores = {one["family"]: one["valid_pr_auc"] for one in report["tried"]}
    assert list(scores) == ["bag", "cnn", "transformer"]
    assert scores[report["family"]] == max(scores.values()) < 1


def test_many_labels_begin_with_the_bag() -> None:
    settings = Distill.model_validate(PARAMS["distill"])
    assert settings.family == "auto"
    assert [one.family for one in families(settings, 4)] == ["linear", "cnn", "transformer"]
    assert [one.family for one in families(settings, 5)] == ["bag", "cnn", "transformer"]
    assert [one.family for one in families(settings.model_copy(update={"family": "cnn"}), 5)] == ["cnn"]


def test_of_a_broken_quantization_is_said_in_what(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled(paths, ["ham", "spam"])
    settings = Quantize.model_validate(PARAMS["quantize"] | {"parent": "student"})

    def broken(parent: Path, folder: Path, *rest: Any) -> None:
        quantizing_whole(parent, folder, *rest)
        model = onnx.load(folder / "model.onnx")
        table = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        table.raw_data = bytes(reversed(table.raw_data))
        onnx.save(model, folder / "model.onnx")

    quantizing_whole = compress_part(KIND).quantize_student
    monkeypatch.setattr(compress_part(KIND), "quantize_student", broken)
    quantize(settings, paths)
    (found, *_) = read_json(paths.report("quantize.json"))["over"]
    assert "(params.yaml: quantize.parity." in found


def test_rows_the_teacher_never_saw_are_named(paths: Paths) -> None:
    from tasks.compress.distillation import teacher_logits

    with paths.logits.open("wb") as file:
        np.savez(file, ids=np.array(["a"]), logits=np.zeros((1, 2), np.float32))
    with pytest.raises(StageError, match="never saw row 'b'"):
        teacher_logits(paths, ["a", "b"])


def test_row_dropout_is_for_training_only() -> None:
    network, tokenizer = fitted_network(made_prepared(["ham", "spam"], 60), steps=2)
    network.row_dropout = 0.5
    rows = torch.from_numpy(tokenizer.encode("winner prize money")[None])
    assert torch.equal(network(rows), network(rows))
    network.train()
    assert len({tuple(network(rows)[0].tolist()) for _ in range(10)}) > 1
