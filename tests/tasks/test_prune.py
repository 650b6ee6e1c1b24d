"""The stage prune: what goes is gone, the least sensitive goes first, and the smallest that is good enough stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from service.kinds.text_classification.scorer import Student as ServedStudent
from service.kinds.text_classification.scorer import load_student
from service.kinds.text_classification.tokenizer import Tokenizer
from tasks.compress.distillation import DistillData, DistillLoss
from tasks.compress.prune import prune, smallest
from tasks.compress.quantize import quantize
from tasks.compress.settings import Prune
from tasks.compress.student import Student
from tasks.files import folder_bytes, read_json
from tasks.kinds.text_classification.compress import Quantize
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.networks import Convolution, Network
from tasks.kinds.text_classification.compress.transformer import ThinStudent
from tasks.kinds.text_classification.compress.units import halve_rows, parts_to_keep, prunables, remove, sensitivities
from tasks.metrics import ranking
from tasks.stage import Paths, StageError
from tests.conftest import made_prepared
from tests.imports import MAIL
from tests.tasks.test_compress import distilled

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
VOICES = DistillLoss(temperature=2.0, teacher_share=0.5)
NONE = np.zeros(0, dtype=np.bool_)
TEXTS = list(made_prepared(["ham", "spam"], 60).input)
WIDE = {"largest": 1, "mean": 1, "disagreement_rate": 1, "threshold_disagreement": 1, "worst_slice": 1, "slice_rows": 20}


def bag() -> Hashed:
    torch.manual_seed(0)
    tokenizer = Tokenizer([4], 9, NONE)
    return Hashed(Network(tokenizer.rows, 6, 10, 2, 0.0), tokenizer)


def cnn() -> Hashed:
    torch.manual_seed(0)
    tokenizer = Tokenizer([], 9, NONE, words=30)
    return Hashed(Convolution(tokenizer.rows, 6, [1, 3], 5, 2, 0.0), tokenizer)


def distill_data(student: Student) -> DistillData:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, len(TEXTS))
    return DistillData(student.encode(TEXTS), np.eye(2, dtype=np.float32)[labels] * 3, labels, np.ones(len(TEXTS)))


def student_of(family: str, fine_tuned: Path) -> Student:
    return {"bag": bag, "cnn": cnn}[family]() if family != "transformer" else ThinStudent(fine_tuned, [0, 1], NONE)


KINDS = [
    ("bag", "dimensions"), ("bag", "hidden"), ("cnn", "dimensions"), ("cnn", "filters"),
    ("transformer", "heads"), ("transformer", "feed_forward"), ("transformer", "layers"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_half_of_the_parts_are_gone_and_the_rest_answers(family: str, kind: str, fine_tuned: Path, tmp_path: Path) -> None:
    student = student_of(family, fine_tuned)
    count = sum(prunable.count for prunable in prunables(student, kind))
    numbers = sum(parameter.numel() for parameter in student.network.parameters())
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    student.save(tmp_path / "before", opset=20)
    remove(student, kind, 0.5, distill_data(student), VOICES)
    assert sum(prunable.count for prunable in prunables(student, kind)) == count - round(0.5 * count)
    assert sum(parameter.numel() for parameter in student.network.parameters()) < numbers
    student.save(tmp_path / "after", opset=20)
    assert folder_bytes(tmp_path / "after") < folder_bytes(tmp_path / "before")
    assert student.outputs(student.encode(TEXTS)).shape == (len(TEXTS), 2)
    student.forward(student.encode(TEXTS[:4])).sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_a_part_that_says_nothing_goes_first_and_its_going_changes_nothing(family: str, kind: str, fine_tuned: Path) -> None:
    student = student_of(family, fine_tuned)
    silent = silence(student, kind)
    before = student.outputs(student.encode(TEXTS))
    found = prunables(student, kind)
    measured = sensitivities(student, found, distill_data(student), VOICES)
    flat = np.concatenate(measured)
    assert flat[silent] == pytest.approx(0, abs=1e-7)
    assert (np.delete(flat, silent) > 0).any()
    remove(student, kind, 1 / len(flat), distill_data(student), VOICES)
    assert np.allclose(student.outputs(student.encode(TEXTS)), before, atol=1e-5)


def silence(student: Student, kind: str) -> int:
    """Make one part of the pupil say nothing; its number among all parts of its kind."""
    network: Any = student.network
    with torch.no_grad():
        if kind == "dimensions":
            network.embedding.weight[:, 2] = 0
            return 2
        if kind == "hidden":
            network.head.weight[:, 4] = 0
            return 4
        if kind == "filters":
            network.head.weight[:, 7] = 0
            return 7
        layer = network.encoder.encoder.layer[1]
        if kind == "heads":
            layer.attention.output.dense.weight[:, :16] = 0
            return 2
        if kind == "feed_forward":
            layer.output.dense.weight[:, 5] = 0
            return 64 + 5
        for name in ("attention.output.dense", "output.dense"):
            layer.get_submodule(name).weight.zero_()
            layer.get_submodule(name).bias.zero_()
        # What goes through two normalisations is what came in, as that was normalised before.
        return 1


def test_one_part_of_each_place_stays_however_much_is_asked_for() -> None:
    kept = parts_to_keep([np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0])], share=0.99)
    assert [keep.tolist() for keep in kept] == [[2], [0]]
    assert parts_to_keep([np.array([0.5, 0.1, 0.4, 0.2])], share=0.5)[0].tolist() == [0, 2]


@pytest.mark.parametrize("make", [bag, cnn])
def test_rows_are_merged_with_their_neighbours_and_every_feature_finds_its_way(make: Any) -> None:
    student = make()
    table = student.network.embedding.weight.detach().clone()
    half = halve_rows(student, TEXTS)
    assert half.tokenizer.bits == 8
    assert half.network.embedding.weight.shape == (257, 6)
    for text in TEXTS[:5]:
        wide, narrow = make().tokenizer.encode(text), half.tokenizer.encode(text)
        assert set(narrow.tolist()) == {(int(row) - 1) // 2 + 1 for row in wide}
    merged = half.network.embedding.weight.detach()
    counts = np.bincount(np.concatenate(make().encode(TEXTS)), minlength=513)
    assert (counts[1::2] != counts[2::2]).any()
    for row in range(1, 257):
        first, second = 2 * row - 1, 2 * row
        weights = np.maximum([counts[first], counts[second]], 1e-6)
        expected = np.average(table[[first, second]].numpy(), axis=0, weights=weights)
        assert np.allclose(merged[row], expected, atol=1e-6)
    assert not merged[0].any()


def test_the_smallest_that_is_good_enough_is_chosen() -> None:
    tried = ((100, 0.99, ["itself"]), (50, 0.989, []), (25, 0.985, []), (30, 0.9895, []), (1, 0.99, ["disagreement_rate"]))
    table = [{"bytes": size, "pr_auc": score, "over": over} for size, score, over in tried]
    assert smallest(table, 0.0) == 0
    assert smallest(table, 0.0006) == 3
    assert smallest(table, 0.002) == 3
    assert smallest(table, 0.01) == 2


@pytest.fixture
def paths(own_store: None, tmp_path: Path) -> Paths:
    (tmp_path / "data").mkdir()
    return Paths(tmp_path)


def settings_for(**changes: Any) -> Prune:
    if "sweep" in changes:
        changes["sweep"] = dict.fromkeys(("linear", "bag", "cnn", "transformer"), changes["sweep"])
    epochs = changes.pop("recovery", 3)
    recovery = dict.fromkeys(PARAMS["prune"]["recovery"], epochs)
    return Prune.model_validate(PARAMS["prune"] | {"recovery": recovery, "margin": 1, "parity": WIDE} | changes)


def test_the_stage_tries_all_keeps_one_and_says_what_it_did(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"])
    sweep = [{"rows": 0.5}, {"dimensions": 0.5, "hidden": 0.5}, {"rows": 0.75, "dimensions": 0.25}]
    prune(settings_for(sweep=sweep), paths)
    report = read_json(paths.report("prune.json"))
    assert [row["removed"] for row in report["sweep"]] == [{}, *sweep]
    assert report["bytes"]["before"] == folder_bytes(paths.model("student")) == report["sweep"][0]["bytes"]
    assert (
        report["bytes"]["after"] == folder_bytes(paths.model("student-pruned")) == min(row["bytes"] for row in report["sweep"])
    )
    assert sorted(path.name for path in paths.model("student-pruned").iterdir()) == ["model.onnx", "variant.json", "words.npz"]
    assert ServedStudent(paths.model("student-pruned")).tokenizer.bits < ServedStudent(paths.model("student")).tokenizer.bits
    first = (paths.model("student-pruned") / "model.onnx").read_bytes()
    prune(settings_for(sweep=sweep), paths)
    assert (paths.model("student-pruned") / "model.onnx").read_bytes() == first


def test_where_nothing_may_go_the_parent_stays_as_it_is(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"])
    prune(settings_for(sweep=[]), paths)
    assert read_json(paths.report("prune.json"))["removed"] == {}
    texts = TEXTS[:20]
    assert np.allclose(
        ServedStudent(paths.model("student-pruned")).logits(texts), ServedStudent(paths.model("student")).logits(texts)
    )


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ([{"rows": 0.4}], "prune.sweep.bag: rows: 0.4: rows go in halves"),
        ([{"rows": 0.999999}], "rows go in halves"),
        ([{"hidden": 1.0}], "prune.sweep.bag: hidden: 1.0: a share lies between 0 and 1"),
        ([{"heads": 0.5}], "heads: 0.5: a student of the family 'bag' has none of these parts"),
    ],
)
def test_what_cannot_go_is_said(paths: Paths, sweep: list[dict[str, float]], says: str) -> None:
    distilled(paths, ["ham", "spam"])
    with pytest.raises(StageError, match=says):
        prune(settings_for(sweep=sweep), paths)
    assert not paths.model("student-pruned").exists()


def test_a_linear_student_keeps_its_dimensions(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"], family="linear")
    with pytest.raises(StageError, match="a student of the family 'linear' has none of these parts"):
        prune(settings_for(sweep=[{"dimensions": 0.5}]), paths)


def test_a_parent_without_its_network_is_named(paths: Paths) -> None:
    with pytest.raises(StageError, match=r"prune\.parent = 'student': models/student-network holds no network"):
        prune(settings_for(), paths)


def test_a_student_that_lost_what_it_knew_is_not_kept(paths: Paths) -> None:
    distilled(paths, ["ham", "spam"])
    strict = WIDE | {"disagreement_rate": 0.01, "mean": 0.01}
    prune(settings_for(sweep=[{"rows": 0.984375, "hidden": 0.9}], recovery=0, parity=strict), paths)
    report = read_json(paths.report("prune.json"))
    assert any("mean = " in line and "prune.parity.mean" in line for line in report["sweep"][1]["over"])
    assert report["removed"] == {}, "the parent as it was"
    assert report["bytes"]["after"] == report["bytes"]["before"]


def test_a_thin_transformer_goes_the_whole_way(paths: Paths, fine_tuned: Path) -> None:
    """Distilled from some of its teacher's layers, pruned of heads, and in 8-bit integers."""
    shutil.copytree(fine_tuned, paths.model("teacher"))
    sgd = {"epochs": 3, "batch_size": 16, "learning_rate": 0.002, "weight_decay": 0.0}
    thin = {"family": "transformer", "transformer": {"layers": [0], "sgd": sgd}, "parity": WIDE}
    frame = distilled(paths, ["ham", "spam"], **thin)
    prune(settings_for(sweep=[{"heads": 0.5}, {"feed_forward": 0.5}], recovery=1), paths)
    assert read_json(paths.report("prune.json"))["removed"]
    block = PARAMS["quantize"] | {"parity": WIDE}
    with pytest.raises(StageError, match=r"quantize\.method = 'codebook': models/student-pruned is a transformer"):
        quantize(Quantize.model_validate(block | {"method": "codebook"}), paths)
    quantize(Quantize.model_validate(block), paths)  # auto
    sizes = [folder_bytes(paths.model(name)) for name in ("student", "student-pruned", "student-quantized")]
    assert sizes == sorted(sizes, reverse=True)
    test = frame[frame.split == "test"]
    logits = load_student(paths.model("student-quantized")).logits(list(test.input))
    assert ranking(logits, test.label_id.to_numpy())["pr_auc"] > 0.7
