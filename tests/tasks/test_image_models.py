"""Image models: a tiny teacher and students of it, trained, exported, pruned and quantized."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, ResNetConfig, ViTConfig

from service.kinds.image_classification.headers import read_header
from service.kinds.image_classification.images import Shape, encode_png, pixels_of
from service.kinds.image_classification.network import Network
from tasks.compress.distillation import DistillData
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds import compress_part, model_part
from tasks.kinds.image_classification.compress.pruning import filters_to_keep
from tasks.kinds.image_classification.compress.student import ImageStudent
from tasks.kinds.image_classification.model.augmentation import augmented
from tasks.kinds.image_classification.model.learning import ImageTeacher, load_teacher
from tasks.kinds.image_classification.model.settings import Augment
from tasks.kinds.image_classification.release import Package, cautions, probes, show
from tasks.model.checkpoint import Checkpoint
from tasks.model.train import Data, Training
from tasks.stage import StageError
from tests.conftest import assert_no_product_saturates
from tests.imports import ROOT

PARAMS = yaml.safe_load((ROOT / "workloads/fashion/params.yaml").read_text())
MODEL, COMPRESS = model_part("image_classification"), compress_part("image_classification")
IMAGE = {"height": 12, "width": 10, "channels": 1, "mean": 100, "std": 60.0}
SHAPE = Shape.of(IMAGE)
CPU = torch.device("cpu")


def made_images(count: int, channels: int = 1, seed: int = 0) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """Images with a bright bar, across in the one class and upright in the other."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 12, 10, channels), dtype=np.uint8)
    labels = rng.integers(2, size=count)
    for image, label, row, column in zip(
        images, labels, rng.integers(12, size=count), rng.integers(10, size=count), strict=True
    ):
        (image[row] if label else image[:, column])[:] = 255
    return [image.tobytes() for image in images], labels


def train_settings(**changes: Any) -> Any:
    small = {
        "widths": [8, 12],
        "blocks": [1, 1],
        "stride": 1,
        "epochs": 2,
        "batch_size": 16,
        "threads": 1,
        "precision": "float32",
    }
    augment = {"shift": 1, "mirror": True, "erase": 0.3, "erase_size": 3}
    return MODEL.Train.model_validate(PARAMS["train"] | small | {"augment": augment} | changes)


def new_teacher(settings: Any, image: dict[str, Any] = IMAGE) -> ImageTeacher:
    torch.manual_seed(1)
    teacher = MODEL.new_teacher(settings, 2, {"image": image})
    assert isinstance(teacher, ImageTeacher)
    return teacher


def training(settings: Any, folder: Path, count: int = 96) -> Training:
    teacher = new_teacher(settings)
    inputs, labels = made_images(count)
    valid, valid_labels = made_images(32, seed=1)
    parts = (teacher.encode(inputs), labels, np.ones(count, np.float32), teacher.encode(valid), valid_labels, np.ones(32))
    return Training(settings, teacher, Data(*parts), CPU, Checkpoint(folder, "made"))


def weights_of(run: Training) -> dict[str, torch.Tensor]:
    return run.teacher.network.state_dict()


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = train_settings(evaluate_every=0.5, patience=10)
    torch.set_num_threads(1)
    (whole := training(settings, tmp_path / "whole")).fit(None)
    killed = training(settings, tmp_path / "killed")
    steps, train_batch = 0, killed._train_batch

    def die_at_last(*arguments: Any, **named: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Killed
        return train_batch(*arguments, **named)

    monkeypatch.setattr(killed, "_train_batch", die_at_last)
    with pytest.raises(Killed):
        killed.fit(None)
    (resumed := training(settings, tmp_path / "killed")).fit(None)
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(resumed)[name]), name


@pytest.mark.parametrize(("widths", "last"), [([8, 32], False), ([16, 32], True)])
def test_narrow_convolutions_keep_the_order_in_memory_in_which_they_overwrite_nothing(widths: list[int], last: bool) -> None:
    teacher = new_teacher(train_settings(widths=widths))
    weights = [layer.weight for layer in teacher.network.modules() if isinstance(layer, torch.nn.Conv2d)]
    wide = [weight for weight in weights if weight.shape[1] > 1 and weight.shape[2] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) == last for weight in wide)
    assert all(weight.is_contiguous() != last for weight in wide)
    ((_, (images,)), *_) = teacher.epoch(teacher.encode(made_images(31)[0]), 31, 1, 0, 0)
    assert images.stride() == (120, 120, 10, 1), "the images leave the order to the weights"


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    teacher = new_teacher(train_settings())
    encoded = teacher.encode(made_images(40)[0])
    whole = list(teacher.epoch(encoded, 16, 1, 0, 0))
    late = list(teacher.epoch(encoded, 16, 1, 0, 2))
    assert [rows for rows, _ in whole][2:] == [rows for rows, _ in late]
    assert torch.equal(whole[2][1][0], late[0][1][0])
    assert sorted(row for rows, _ in whole for row in rows) == list(range(40))
    assert whole[0][0] != next(teacher.epoch(encoded, 16, 1, 1, 0))[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mirror", [True, False])
def test_a_teacher_answers_the_same_saved_and_exported(tmp_path: Path, channels: int, mirror: bool) -> None:
    image = IMAGE | {"channels": channels}
    augment = {"shift": 0, "mirror": mirror, "erase": 0, "erase_size": 1}
    teacher = new_teacher(train_settings(augment=augment), image)
    inputs, _ = made_images(9, channels)
    expected = teacher.predict(teacher.encode(inputs), CPU, False)
    for name, write in (("saved", teacher.save), ("exported", lambda folder: teacher.export(folder, 20))):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    loaded = load_teacher(tmp_path / "saved")
    assert np.array_equal(loaded.predict(loaded.encode(inputs), CPU, False), expected)
    assert np.abs(Network(tmp_path / "exported", 1).logits(inputs) - expected).max() < 1e-4
    if mirror:
        flipped = [np.ascontiguousarray(pixels[:, ::-1]) for pixels in teacher.encode(inputs)]
        assert np.allclose(teacher.predict(flipped, CPU, False), expected, atol=1e-5)


def test_as_many_blocks_as_widths() -> None:
    with pytest.raises(StageError, match=r"train\.blocks = \[1\]: one number for each"):
        new_teacher(train_settings(blocks=[1]))


def test_augmented_images_are_shifted_mirrored_and_erased_by_draws_alone() -> None:
    pixels = np.stack([SHAPE.array(image) for image in made_images(50)[0]])
    nothing = Augment(shift=0, mirror=False, erase=0, erase_size=1)
    assert np.array_equal(augmented(pixels, nothing, 7, np.random.default_rng(0)), pixels)
    all_of_it = Augment(shift=2, mirror=True, erase=1, erase_size=3)
    first, second = (augmented(pixels, all_of_it, 7, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == pixels.shape
    assert all((image == 7).any() for image in first)
    mirrored = augmented(pixels, nothing.model_copy(update={"mirror": True}), 7, np.random.default_rng(0))
    same = [np.array_equal(image, other) for image, other in zip(mirrored, pixels, strict=True)]
    assert 10 < sum(same) < 40
    assert all(kept or np.array_equal(i, o[:, ::-1]) for kept, i, o in zip(same, mirrored, pixels, strict=True))


def test_the_baseline_reads_pixels() -> None:
    inputs, labels = made_images(60)
    settings = MODEL.Baseline.model_validate(PARAMS["baseline"] | {"gradients": False})
    features = MODEL.vectorizer(settings, {"image": IMAGE}).fit_transform(inputs)
    assert features.shape == (60, 120)
    assert 0 <= features.min() <= features.max() <= 1
    assert LogisticRegression().fit(features, labels).score(features, labels) > 0.8


def test_gradients_tell_directions_that_pixels_of_any_place_do_not() -> None:
    inputs, labels = made_images(400, channels=3)
    unseen, unseen_labels = made_images(200, channels=3, seed=9)
    scores = {}
    for gradients in (False, True):
        settings = MODEL.Baseline.model_validate(PARAMS["baseline"] | {"gradients": gradients})
        features = MODEL.vectorizer(settings, {"image": IMAGE | {"channels": 3}})
        model = LogisticRegression(C=0.1, max_iter=200).fit(features.fit_transform(inputs), labels)
        assert np.isfinite(features.transform(unseen)).all()
        scores[gradients] = model.score(features.transform(unseen), unseen_labels)
    assert features.transform(unseen).shape == (200, 12 * 10 * 3 + 3 * 3 * 9), "a side of 10 has three cells"
    assert scores[True] > 0.9
    assert scores[True] > scores[False]


def pretrained_folder(folder: Path, config: Any) -> str:
    torch.manual_seed(1)
    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
        ViTConfig(
            num_channels=1,
            image_size=(12, 10),
            patch_size=2,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        ),
    ],
    ids=["resnet", "vit"],
)
def test_any_image_model_of_transformers_is_a_teacher(tmp_path: Path, config: Any) -> None:
    settings = train_settings(model=pretrained_folder(tmp_path / "pretrained", config), epochs=1)
    made = training(settings, tmp_path)
    held = {name: tensor.clone() for name, tensor in weights_of(made).items()}
    made.fit(None)
    changed = [name for name, tensor in weights_of(made).items() if not torch.equal(tensor, held[name])]
    assert len(changed) > len(held) / 2, "all of it is fine-tuned"
    teacher: Any = made.teacher
    inputs, _ = made_images(9)
    teacher.network.eval()
    expected = teacher.predict(teacher.encode(inputs), CPU, False)
    for name, write in (("saved", teacher.save), ("exported", lambda folder: teacher.export(folder, 20))):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    loaded = load_teacher(tmp_path / "saved")
    assert np.allclose(loaded.predict(loaded.encode(inputs), CPU, False), expected, atol=1e-6)
    assert np.abs(Network(tmp_path / "exported", 1).logits(inputs) - expected).max() < 1e-4


def test_a_pretrained_model_that_cannot_be_a_teacher_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"train\.model = 'no-such-model': neither a folder"):
        new_teacher(train_settings(model="no-such-model"))
    config = ResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")
    with pytest.raises(StageError, match=r"ResNetModel does not take images of 1 x 12 x 10 \(prepare\.image\)"):
        new_teacher(train_settings(model=pretrained_folder(tmp_path, config)))


def distill_settings(family: str, **changes: Any) -> Any:
    cnn = {"kernel": 3, "widths": [12, 16, 24], "strides": [1, 2, 1], "dropout": 0.0}
    cnn["sgd"] = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.01}
    return COMPRESS.Distill.model_validate(
        PARAMS["distill"] | {"family": family, "cnn": cnn, "dscnn": cnn, "threads": 1} | changes
    )


@pytest.fixture(scope="module", name="teacher")
def fixture_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    new_teacher(train_settings()).save(folder)
    return folder


def data_for(student: ImageStudent, count: int, seed: int) -> DistillData:
    inputs, labels = made_images(count, seed=seed)
    teacher = (8 * np.eye(2)[labels]).astype(np.float32)
    return DistillData(student.encode(inputs), teacher, labels, np.ones(count))


def trained(family: str, teacher: Path) -> tuple[ImageStudent, Any, DistillData]:
    settings = distill_settings(family)
    torch.manual_seed(1)
    torch.set_num_threads(1)
    student = COMPRESS.new_student(settings, 2, COMPRESS.context([], settings), teacher)
    train, valid = data_for(student, 320, 2), data_for(student, 64, 3)
    assert COMPRESS.forecast(student, train, settings) > 0
    COMPRESS.learn(student, train, valid, settings)
    return student, settings, valid


@pytest.mark.parametrize("family", ["cnn", "dscnn"])
def test_a_student_learns_and_its_export_pruned_and_int8_forms_agree(tmp_path: Path, teacher: Path, family: str) -> None:
    student, settings, valid = trained(family, teacher)
    inputs, labels = made_images(64, seed=3)
    expected = student.outputs(valid.inputs)
    assert (expected.argmax(axis=1) == labels).mean() > 0.9

    def saved(name: str, written: ImageStudent) -> Path:
        (folder := tmp_path / name).mkdir()
        written.save(folder, 20)
        return folder

    whole = saved("whole", student)
    served = Network(whole, 1)
    assert np.abs(served.logits(inputs) - expected).max() < 1e-4
    assert served.outputs(inputs)[1].shape == (64, 24)
    assert not {"BatchNormalization"} & {node.op_type for node in onnx.load(whole / "model.onnx").graph.node}

    parent = SimpleNamespace(held_out=lambda student: valid, settings=settings, where=lambda part, share: f"{part}: {share}")
    smaller = COMPRESS.remove_share(student, "filters", 0.4, parent)
    assert sum(smaller.network.widths) == 52 - round(0.4 * 52)
    pruned = saved("pruned", smaller)
    assert read_json(pruned / "variant.json")["parameters"] < 0.6 * read_json(whole / "variant.json")["parameters"]
    assert folder_bytes(pruned) < folder_bytes(whole)
    assert np.abs(Network(pruned, 1).logits(inputs) - smaller.outputs(valid.inputs)).max() < 1e-4
    with pytest.raises(StageError, match=r"rows: 0\.5: a convolutional student has the parts: filters"):
        COMPRESS.remove_share(student, "rows", 0.5, parent)

    (quantized := tmp_path / "int8").mkdir()
    every_layer = COMPRESS.Quantize.model_validate(PARAMS["quantize"] | {"operators": ["Conv", "Gemm"]})
    COMPRESS.quantize_student(whole, quantized, every_layer, inputs)
    answers = Network(quantized, 1).logits(inputs)
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.95
    assert folder_bytes(quantized) < folder_bytes(whole)
    assert "Relu" not in {node.op_type for node in onnx.load(quantized / "model.onnx").graph.node}
    assert_no_product_saturates(quantized / "model.onnx")


def test_a_filter_cut_off_has_no_trace_in_the_others(teacher: Path) -> None:
    settings = distill_settings("cnn")
    student = COMPRESS.new_student(settings, 2, None, teacher)
    images = torch.rand(5, 1, 12, 10)
    for layer in student.network.mixing():  # a filter of scale 0 and bias 0 adds nothing
        torch.nn.init.zeros_(layer.weight[1:2])
        torch.nn.init.zeros_(layer.bias[1:2])
    student.network.eval()
    keep = [torch.tensor([0, *range(2, width)]) for width in student.network.widths]
    smaller = student.network.narrowed(keep).eval()
    assert torch.allclose(student.network(images), smaller(images), atol=1e-5)


def test_the_least_important_filters_go_and_one_of_each_width_stays() -> None:
    assert [kept.tolist() for kept in filters_to_keep([np.array([1.0, 9.0]), np.array([5.0, 4.0, 0.1])], 0.4)] == [[1], [0, 1]]
    assert [len(kept) for kept in filters_to_keep([np.ones(4), np.zeros(4)], 0.99)] == [1, 1]


def test_quantization_without_images_is_an_error(tmp_path: Path, teacher: Path) -> None:
    student = COMPRESS.new_student(distill_settings("cnn"), 2, None, teacher)
    for name in ("parent", "child"):
        (tmp_path / name).mkdir()
    student.save(tmp_path / "parent", 20)
    with pytest.raises(StageError, match=r"quantize\.calibration_inputs"):
        COMPRESS.quantize_student(
            tmp_path / "parent", tmp_path / "child", COMPRESS.Quantize.model_validate(PARAMS["quantize"]), []
        )


def test_auto_tries_the_smaller_family_first() -> None:
    assert [settings.family for settings in COMPRESS.families(distill_settings("auto"), 10)] == ["dscnn", "cnn"]
    assert [settings.family for settings in COMPRESS.families(distill_settings("cnn"), 10)] == ["cnn"]


def test_a_model_of_another_size_is_refused(tmp_path: Path, teacher: Path) -> None:
    COMPRESS.new_student(distill_settings("cnn"), 2, None, teacher).save(tmp_path, 20)
    found = read_json(tmp_path / "variant.json")
    write_json(tmp_path / "variant.json", found | {"image": found["image"] | {"height": 28, "width": 28}})
    with pytest.raises(ValueError, match=r"reads images of \[12, 10, 1\], variant\.json says \[28, 28, 1\]"):
        Network(tmp_path, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_probes_have_the_size_of_the_data_and_are_none_of_it(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 10, channels), dtype=np.uint8)
    rows = pd.DataFrame({"raw": list(map(encode_png, pixels)), "input": [image.tobytes() for image in pixels]})
    settings = Package.model_validate(PARAMS["package"])
    found = probes(rows, settings)
    assert found == probes(rows, settings)
    assert len(set(found)) == settings.probes
    assert not set(found) & set(rows.raw)
    assert {(read_header(raw).width, read_header(raw).height) for raw in found} == {(10, 12)}
    assert all(len(pixels_of(raw, Shape(12, 10, channels, 0, 1.0))) == 120 * channels for raw in found)
    with pytest.raises(StageError, match="no image"):
        probes(rows[:0], settings)


def test_what_a_page_shows_of_an_image_and_what_the_card_warns_of() -> None:
    assert show(encode_png(np.zeros((2, 2), np.uint8)))["image"].startswith("data:image/png;base64,")
    assert any("28 x 28" in line for line in cautions({"image": PARAMS["prepare"]["image"]}))
