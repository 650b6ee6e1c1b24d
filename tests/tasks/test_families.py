"""Families of students: the linear one is the best there is, the others learn, start, resume and are served as they say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from scipy.optimize import check_grad
from threadpoolctl import threadpool_limits

from service.kinds.text_classification.scorer import load_student
from service.kinds.text_classification.tokenizer import Tokenizer, known_words
from service.kinds.text_classification.transformer import WindowedStudent
from tasks.compress.distill import teacher_predict
from tasks.compress.distillation import UNLABELLED, DistillData, DistillLoss, distillation_loss
from tasks.compress.sgd import Sgd, train_sgd
from tasks.kinds.text_classification.compress import Distill
from tasks.kinds.text_classification.compress.crops import crops
from tasks.kinds.text_classification.compress.embeddings import principal, start_from_teacher
from tasks.kinds.text_classification.compress.families import new_student, salt_of
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.linear import Linear, fit_linear, loss_and_gradient, matrix
from tasks.kinds.text_classification.compress.networks import Convolution, Network
from tasks.kinds.text_classification.compress.settings import Crops
from tasks.kinds.text_classification.compress.transformer import ThinStudent
from tasks.model.checkpoint import Checkpoint
from tasks.model.variants import load_variant
from tasks.stage import StageError
from tests.conftest import FILLER, KIND, WORDS, made_prepared
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())
VOICES = DistillLoss(temperature=3.0, teacher_share=0.6)
NONE = np.zeros(0, dtype=np.bool_)


def made_lesson(student: Hashed, labels: Sequence[str], split: str, rows: int = 350) -> DistillData:
    frame = made_prepared(list(labels), rows)
    part = frame[frame.split == split]
    logits = np.eye(len(labels), dtype=np.float32)[part.label_id] * 4
    return DistillData(student.encode(list(part.input)), logits, part.label_id.to_numpy(), part.weight.to_numpy())


def linear_pupil(labels: int, bits: int = 10) -> Hashed:
    torch.manual_seed(0)
    tokenizer = Tokenizer([4], bits, NONE)
    return Hashed(Network(tokenizer.rows, labels, 0, labels, 0.0), tokenizer)


def random_scores(rows: int, labels: int) -> tuple[npt.NDArray[np.float64], ...]:
    rng = np.random.default_rng(5)
    told = rng.integers(0, labels, rows)
    told[:3] = UNLABELLED
    return rng.normal(0, 2, (rows, labels)), told, rng.normal(0, 3, (rows, labels)), rng.uniform(0.5, 2, rows)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_loss_in_numpy_is_the_one_in_torch_and_its_gradient_is_right(labels: int) -> None:
    logits, told, said, weights = random_scores(12, labels)
    loss, _ = loss_and_gradient(logits, told, said, weights, VOICES)
    in_torch = distillation_loss(*map(torch.from_numpy, (logits, said, told, weights)), VOICES)
    assert loss == pytest.approx(in_torch.item(), rel=1e-9)

    def value(point: Any) -> float:
        return loss_and_gradient(point.reshape(logits.shape), told, said, weights, VOICES)[0]

    def slope(point: Any) -> Any:
        return loss_and_gradient(point.reshape(logits.shape), told, said, weights, VOICES)[1].ravel()

    assert check_grad(value, slope, logits.ravel()) < 1e-5


@pytest.mark.parametrize("labels", [["ham", "spam"], ["ham", "news", "spam"]])
def test_no_step_away_from_the_linear_student_is_better(labels: list[str]) -> None:
    student = linear_pupil(len(labels))
    train, valid = (made_lesson(student, labels, split) for split in ("train", "valid"))
    settings = Linear(penalty=1e-3, max_iter=500)
    history = fit_linear(student, train, valid, settings, VOICES)
    assert history[0]["train_loss"] > history[-1]["train_loss"]
    assert history[-1]["valid_pr_auc"] > 0.95
    network = student.network
    assert isinstance(network, Network)
    texts = matrix(train.inputs, student.tokenizer.rows)
    values, bias = network.embedding.weight.detach().double().numpy(), network.head.bias.detach().double().numpy()

    def whole_loss(values: Any, bias: Any) -> float:
        loss, _ = loss_and_gradient(texts @ values + bias, train.labels, train.teacher.astype(float), train.weights, VOICES)
        return loss + settings.penalty / 2 * float((values**2).sum())

    best, rng = whole_loss(values, bias), np.random.default_rng(0)
    for _ in range(20):
        assert whole_loss(values + rng.normal(0, 0.02, values.shape), bias + rng.normal(0, 0.02, bias.shape)) > best
    assert np.allclose(texts @ values + bias, student.outputs(train.inputs), atol=1e-4), "the network says what was solved for"


def test_the_linear_student_does_not_depend_on_threads() -> None:
    found = []
    for threads in (1, 2):
        student = linear_pupil(2)
        train, valid = (made_lesson(student, ["ham", "spam"], split) for split in ("train", "valid"))
        with threadpool_limits(threads):
            fit_linear(student, train, valid, Linear(penalty=1e-2, max_iter=500), VOICES)
        found.append(student.network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_rows_that_no_training_text_holds_say_nothing() -> None:
    student = linear_pupil(2, bits=14)
    train = made_lesson(student, ["ham", "spam"], "train")
    fit_linear(student, train, made_lesson(student, ["ham", "spam"], "valid"), Linear(penalty=1e-3, max_iter=50), VOICES)
    used = np.unique(np.concatenate(train.inputs))
    silent = np.setdiff1d(np.arange(student.tokenizer.rows), used)
    assert len(silent) > 1000
    assert not student.network.embedding.weight.detach().numpy()[silent].any()


def descended(folder: Path, epochs: int, stop_after: int | None = None) -> tuple[list[dict[str, float]], dict[str, Any]]:
    torch.manual_seed(3)
    tokenizer = Tokenizer([4], 10, NONE)
    student = Hashed(Network(tokenizer.rows, 4, 8, 2, 0.2), tokenizer)
    train, valid = (made_lesson(student, ["ham", "spam"], split) for split in ("train", "valid"))

    def stop(epoch: int, _: float) -> None:
        if epoch == stop_after:
            raise KeyboardInterrupt

    settings = Sgd(epochs=epochs, batch_size=16, learning_rate=0.02, weight_decay=0.0)
    history = train_sgd(student, train, valid, settings, VOICES, 7, Checkpoint(folder, "one"), stop)
    return history, student.network.state_dict()


def test_a_student_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole_history, whole_state = descended(tmp_path / "whole", 5)
    with pytest.raises(KeyboardInterrupt):
        descended(tmp_path / "broken", 5, stop_after=2)
    history, state = descended(tmp_path / "broken", 5)
    assert history == whole_history
    assert all(torch.equal(state[name], whole_state[name]) for name in state)


def test_a_convolution_reads_order_and_its_padding_says_nothing() -> None:
    torch.manual_seed(0)
    network = Convolution(50, 6, [1, 2, 4], 5, 2, dropout=0.5).eval()
    rows = torch.tensor([[3, 9, 4], [9, 3, 4]])
    wide = torch.nn.functional.pad(rows, (0, 9))
    with torch.inference_mode():
        assert torch.allclose(network(rows), network(wide), atol=1e-6)
        assert not torch.allclose(network(rows)[0], network(rows)[1])
        assert not network.pool(torch.zeros((1, 3), dtype=torch.long)).any(), "a text without words"


def test_words_start_as_their_teacher_s(fine_tuned: Path) -> None:
    tokenizer = Tokenizer([], 16, NONE, salt_of(4))
    embedding = torch.nn.Embedding(tokenizer.rows, 5)
    before = embedding.weight.detach().clone()
    count = start_from_teacher(embedding, tokenizer, fine_tuned)
    words = {*FILLER, *(word for pool in WORDS.values() for word in pool)}
    assert count == len(words)
    rows = {word: int(Tokenizer([], 16, NONE, salt_of(4), words=1).encode(word)[0]) for word in words}
    changed = set(np.flatnonzero((embedding.weight.detach() != before).any(dim=1).numpy()).tolist())
    assert changed == set(rows.values())


def test_principal_components_keep_what_differs_most() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, [5, 0.1, 0.1], (200, 3)).astype(np.float32)
    first = principal(vectors, 1)[:, 0]
    assert abs(np.corrcoef(first, vectors[:, 0])[0, 1]) > 0.999
    assert first.std() == pytest.approx(0.1, rel=1e-3)


def test_crops_are_runs_of_words_and_the_teacher_scores_them(fine_tuned: Path) -> None:
    text = " ".join(FILLER * 4)
    settings = Crops(count=3, shares=(0.3, 0.6), weight=0.5)
    pieces = crops([text, "too short"], settings, seed=2)
    assert len(pieces) == 3
    assert all(piece in text and 20 <= len(piece.split()) <= 0.6 * len(text.split()) for piece in pieces)
    assert pieces == crops([text, "too short"], settings, seed=2)
    assert teacher_predict(KIND, fine_tuned, pieces).shape == (3, 2)


def test_a_thin_transformer_has_the_layers_that_were_asked_for_and_is_served(fine_tuned: Path, tmp_path: Path) -> None:
    texts = list(made_prepared(["ham", "spam"], 20).input)
    known = known_words(texts, 1, 10)
    for layers in ([], [1, 0], [2], [0, 0]):
        with pytest.raises(StageError, match="the teacher has the layers 0 to 1"):
            ThinStudent(fine_tuned, layers, known)
    full, thin = ThinStudent(fine_tuned, [0, 1], known), ThinStudent(fine_tuned, [1], known)
    assert np.abs(full.outputs(full.encode(texts)) - load_variant(fine_tuned, 1).logits(texts)).max() < 0.02
    (tmp_path / "thin").mkdir()
    thin.save(tmp_path / "thin", opset=20)
    served = load_student(tmp_path / "thin")
    assert isinstance(served, WindowedStudent)
    logits, features = served.outputs(texts)
    assert np.allclose(logits, thin.outputs(thin.encode(texts)), atol=1e-4)
    assert features.shape == (20, 0)
    assert served.tokenizer.unknown_share(texts[0]) == 0
    assert served.tokenizer.unknown_share("zyzzyva") == 1
    assert served.parameters < load_variant(fine_tuned, 1).parameters


@pytest.mark.parametrize("family", ["linear", "bag", "cnn", "transformer"])
def test_every_family_of_params_can_be_made(family: str, fine_tuned: Path) -> None:
    changes = {"family": family, "bits": 10, "transformer": PARAMS["distill"]["transformer"] | {"layers": [0]}}
    settings = Distill.model_validate(PARAMS["distill"] | changes)
    student = new_student(settings, 2, NONE, fine_tuned)
    assert student.outputs(student.encode(["winner prize money", "kernel patch review"])).shape == (2, 2)
    assert student.forward(student.encode(["winner"])).requires_grad
