"""The methods of the stage quantize: each is smaller, agrees with its parent, and is caught where it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from service.kinds.text_classification.scorer import Student
from service.kinds.text_classification.tokenizer import PADDING
from tasks.compress.parity import Parity, ScoreLimits, compare, enforce
from tasks.compress.quantize import calibration, quantize
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds.text_classification.compress import Quantize, quantize_student
from tasks.kinds.text_classification.compress.codebook import Codebook, Part, decode, encode, lookup, pack
from tasks.kinds.text_classification.compress.networks import save_student
from tasks.onnx_file import write_onnx
from tasks.stage import Paths, StageError, read_settings
from tests.conftest import KIND, assert_no_product_saturates, fitted_network, made_prepared
from tests.imports import MAIL, ROOT

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["quantize"]
METHODS: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "static": {"method": "static"},
    "codebook-8": {"method": "codebook", "codebook": {"bits": 8, "dimensions": 2}},
    "codebook-4": {"method": "codebook", "codebook": {"bits": 4, "dimensions": 2}, "seed": 2},
}
SHAPES = {"linear": (["ham", "spam"], 2, 0), "hidden": (["ham", "spam"], 8, 16), "three": (["ham", "news", "spam"], 2, 0)}
"""Labels, dimensions and width of the hidden layer of the networks that are quantized."""
LIMITS = ScoreLimits(largest=0.1, mean=0.01, disagreement_rate=0.02)
TEXTS = list(made_prepared(["ham", "news", "spam"], 100, seed=9).input)
TRAIN = list(made_prepared(["ham", "news", "spam"], 100, seed=3).input)


def asked(**changes: Any) -> Quantize:
    return Quantize.model_validate(PARAMS | {"parent": "student"} | changes)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student of each shape, as a folder."""
    root = tmp_path_factory.mktemp("parents")
    for name, (labels, dimensions, hidden) in SHAPES.items():
        (root / name).mkdir()
        network, tokenizer = fitted_network(made_prepared(labels, 300), dimensions=dimensions, hidden=hidden)
        save_student(network, tokenizer, root / name, opset=20)
    return {name: root / name for name in SHAPES}


@pytest.fixture(scope="module")
def twins(parents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The quantized twin of each parent by each method, as a folder."""
    root = tmp_path_factory.mktemp("twins")
    made = {}
    for shape, parent in parents.items():
        for method, changes in METHODS.items():
            folder = made[shape, method] = root / f"{shape}-{method}"
            folder.mkdir()
            quantize_student(parent, folder, asked(**changes), TRAIN)
    return made


def parity(parent: Path, child: Path) -> Parity:
    return compare(*(Student(folder).logits(TEXTS) for folder in (parent, child)))


def weights(folder: Path) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(folder / "model.onnx").graph.initializer}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("method", "bits"), [("dynamic", 8), ("static", 8), ("codebook-8", 8), ("codebook-4", 4)])
def test_each_method_is_smaller_and_agrees_with_its_parent(
    parents: dict[str, Path], twins: dict[tuple[str, str], Path], shape: str, method: str, bits: int
) -> None:
    parent, child = parents[shape], twins[shape, method]
    found = parity(parent, child)
    assert found.largest > 0, "something was quantized"
    enforce(found, LIMITS, "quantize.parity")
    rows, dimensions = 2049, SHAPES[shape][1]
    codes = [array for array in weights(child).values() if array.size >= rows // 2]
    columns = dimensions if bits == 8 and "codebook" not in method else dimensions // 2  # a code is for two columns
    assert sum(array.nbytes for array in codes) == pytest.approx(rows * columns * bits / 8, abs=columns)
    assert {array.dtype.itemsize for array in codes} == {1}
    if "codebook" not in method:
        assert np.ptp(codes[0].astype(int)) > 127, "a table is looked up, and keeps its 8 bits"
        assert_no_product_saturates(child / "model.onnx")


def test_every_twin_answers_the_same_where_there_is_no_torch(twins: dict[tuple[str, str], Path]) -> None:
    code = (
        "import sys; import numpy as np; from pathlib import Path\n"
        "from service.kinds.text_classification.scorer import Student\n"
        "for folder in sys.argv[2:]: np.save(Path(folder) / 'found.npy', Student(Path(folder)).logits([sys.argv[1]]))\n"
        "assert not {'torch', 'onnx', 'sklearn', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    folders = [str(folder) for folder in twins.values()]
    subprocess.run([sys.executable, "-c", code, TEXTS[0], *folders], cwd=ROOT, check=True)
    for folder in twins.values():
        assert np.array_equal(np.load(folder / "found.npy"), Student(folder).logits(TEXTS[:1]))


def test_padding_adds_nothing(twins: dict[tuple[str, str], Path]) -> None:
    short = TEXTS[0][:20]
    for (shape, method), folder in twins.items():
        student = Student(folder)
        alone, among = student.outputs([short]), student.outputs([short, " ".join(TEXTS)])
        assert among[1][0] == pytest.approx(alone[1][0], abs=1e-5), (shape, method)
        assert not student.outputs([""])[1].any(), (shape, method)
        if method != "dynamic":  # that one scales what a layer sees by all of the batch
            assert among[0][0] == pytest.approx(alone[0][0], abs=1e-5), (shape, method)


class Convolution(nn.Module):
    """A student of another kind: three neighbouring rows at a time, and the largest of what was seen anywhere."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, 16, padding_idx=PADDING)
        self.windows = nn.Conv1d(16, 24, 3, padding=1)
        self.head = nn.Linear(24, 2)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        present = (rows != PADDING).unsqueeze(1).to(torch.float32)
        seen = torch.relu(self.windows(self.embedding(rows).transpose(1, 2) * present)) * present
        features = seen.amax(2)
        return self.head(features), features


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_a_convolution_can_be_quantized_too(parents: dict[str, Path], tmp_path: Path, changes: dict[str, Any]) -> None:
    parent = copytree(parents["linear"], tmp_path / "parent")
    torch.manual_seed(0)
    free = {"rows": {0: torch.export.Dim("texts"), 1: torch.export.Dim("length")}}
    example = {"rows": torch.ones((2, 3), dtype=torch.long)}
    write_onnx(Convolution(2049), example, ("logits", "features"), free, parent / "model.onnx", 20)
    child = tmp_path / "child"
    child.mkdir()
    quantize_student(parent, child, asked(operators=["Gather", "Gemm", "MatMul", "Conv"], **changes), TRAIN)
    assert folder_bytes(child) < 0.45 * folder_bytes(parent)
    before, after = (Student(folder).logits(TEXTS) for folder in (parent, child))
    apart = np.abs(after - before).max() / np.ptp(before)
    assert 0 < apart < (0.5 if changes.get("codebook", {}).get("bits") == 4 else 0.1)
    if changes["method"] != "codebook":
        assert_no_product_saturates(child / "model.onnx")
    filters = [array.dtype for array in weights(child).values() if array.ndim == 3]
    assert filters == [np.dtype(np.float32 if changes["method"] == "codebook" else np.int8)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([4, 8]), st.integers(0, 10**6))
def test_the_graph_reads_codes_as_numpy_does(rows: int, count: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [
        Part(rng.integers(0, 1 << bits, rows).astype(np.uint8), rng.normal(size=(1 << bits, 2)).astype(np.float32))
        for _ in range(count)
    ]
    nodes, constants = lookup("rows", "vectors", parts, bits)
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["texts", "length"])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", "length", 2 * count])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = np.stack([np.arange(rows), rng.integers(0, rows, rows)])
    assert np.array_equal(session.run(None, {"rows": wanted})[0], decode(parts)[wanted])
    if bits == 4:
        packed = pack(parts[0].codes)
        assert len(packed) == (rows + 1) // 2
        assert np.array_equal(np.concatenate([packed & 15, packed >> 4])[:rows], parts[0].codes)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 60), st.sampled_from([1, 2, 4]), st.integers(0, 10**6))
def test_a_decoded_row_is_its_nearest_codeword_and_zeros_stay_zeros(rows: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, 4)).astype(np.float32)
    table[[PADDING, rows // 2]] = 0
    parts = encode(table, np.ones(rows, dtype=np.int64), Codebook(bits=4, dimensions=dimensions), seed)
    assert len(parts) == 4 // dimensions
    assert not decode(parts)[[PADDING, rows // 2]].any()
    for part, columns in zip(parts, np.split(table, len(parts), axis=1), strict=True):
        apart = np.linalg.norm(columns[:, None] - part.words, axis=2)
        assert np.linalg.norm(columns - part.words[part.codes], axis=1) == pytest.approx(apart.min(axis=1), abs=1e-5)


def test_few_vectors_are_kept_as_they_are_and_common_rows_before_rare_ones() -> None:
    rng = np.random.default_rng(0)
    codebook = Codebook(bits=4, dimensions=8)
    few = rng.normal(size=(10, 3)).astype(np.float32)[rng.integers(0, 10, 500)]
    assert decode(encode(few, np.zeros(500, dtype=np.int64), codebook, 0)) == pytest.approx(few, abs=1e-5)
    table = rng.normal(size=(500, 2)).astype(np.float32)
    counts = np.where(np.arange(500) < 50, 1000, 0)
    plain, weighted = (
        np.linalg.norm(decode(encode(table, often, codebook, 0)) - table, axis=1) for often in (np.zeros_like(counts), counts)
    )
    assert (weighted[:50] ** 2).mean() < 0.7 * (plain[:50] ** 2).mean()


def test_a_width_that_codewords_do_not_divide_is_cut_into_like_parts() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(0, 1, (300, 8)).astype(np.float32)
    parts = encode(table, np.ones(300, np.int64), Codebook(bits=8, dimensions=3), seed=1)
    assert [part.words.shape[1] for part in parts] == [3, 3, 2]
    assert decode(parts).shape == table.shape


@pytest.mark.parametrize("method", METHODS)
def test_what_is_quantized_already_has_no_table_for_a_codebook(
    twins: dict[tuple[str, str], Path], tmp_path: Path, method: str
) -> None:
    with pytest.raises(StageError, match=rf"linear-{method}/model.onnx: quantize.method = codebook needs one .*, found 0"):
        quantize_student(twins["linear", method], tmp_path, asked(**METHODS["codebook-8"]), TRAIN)


@pytest.mark.parametrize("method", ["codebook-8", "codebook-4"])
@pytest.mark.parametrize("spoilt", ["codes are shuffled", "one codeword for all"])
def test_a_broken_codebook_is_caught_by_the_named_figures(
    parents: dict[str, Path], twins: dict[tuple[str, str], Path], tmp_path: Path, method: str, spoilt: str
) -> None:
    child = copytree(twins["linear", method], tmp_path / "broken")
    model = onnx.load(child / "model.onnx")
    name = "codes.0.stored" if spoilt == "codes are shuffled" else "codes.0.words"
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    array = numpy_helper.to_array(tensor)
    wrong = np.random.default_rng(0).permutation(array) if name.endswith("stored") else np.broadcast_to(array[1], array.shape)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wrong), name))
    onnx.save(model, child / "model.onnx")
    with pytest.raises(StageError, match=r"mean = .*, at most 0.01 \(params.yaml: quantize.parity.mean\)") as caught:
        enforce(parity(parents["linear"], child), asked().parity, "quantize.parity")
    assert "quantize.parity.disagreement_rate" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes(
    parents: dict[str, Path], twins: dict[tuple[str, str], Path], tmp_path: Path, method: str
) -> None:
    quantize_student(parents["hidden"], tmp_path, asked(**METHODS[method]), TRAIN)
    again, first = ((folder / "model.onnx").read_bytes() for folder in (tmp_path, twins["hidden", method]))
    assert again == first
    quantize_student(parents["hidden"], tmp_path, asked(**METHODS[method] | {"seed": 3}), TRAIN)
    assert ((tmp_path / "model.onnx").read_bytes() == first) == ("codebook" not in method), "k-means begins elsewhere"


def test_calibration_draws_from_train_by_the_seed() -> None:
    train = made_prepared(["ham", "spam"], 50)
    drawn = calibration(train, asked(calibration_inputs=20, seed=1))
    assert len(set(drawn)) == 20
    assert set(drawn) < set(train.input)
    assert drawn == calibration(train, asked(calibration_inputs=20, seed=1))
    assert drawn != calibration(train, asked(calibration_inputs=20, seed=2))
    assert sorted(calibration(train, asked(calibration_inputs=1000))) == sorted(train.input)


@pytest.mark.parametrize("method", ["static", "codebook-4"])
def test_calibrated_on_nothing_is_an_error_that_names_the_parameter(
    parents: dict[str, Path], tmp_path: Path, method: str
) -> None:
    with pytest.raises(StageError, match=r"quantize.calibration_inputs = \d+: train has no row"):
        quantize_student(parents["linear"], tmp_path, asked(**METHODS[method]), [])
    with pytest.raises(StageError, match=r"quantize.calibration_inputs = 0"):
        read_settings(Quantize, "quantize", {"quantize": PARAMS | METHODS[method] | {"calibration_inputs": 0}})


@pytest.fixture
def paths(own_store: None, parents: dict[str, Path], tmp_path: Path) -> Paths:
    """A project with a student of three labels."""
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    made_prepared(["ham", "news", "spam"], 700, seed=4).to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "news", "spam"], "positive": None})
    paths.models.mkdir()
    copytree(parents["three"], paths.model("student"))
    return paths


@pytest.mark.parametrize("method", METHODS)
def test_the_stage_runs_by_each_method_and_names_what_is_over(paths: Paths, method: str) -> None:
    limits = PARAMS["parity"] | {"disagreement_rate": 0.05, "threshold_disagreement": 0.05}  # of a hundred messages of valid
    quantize(asked(**METHODS[method], parity=limits), paths)
    report = read_json(paths.report("quantize.json"))
    assert report["bytes"]["after"] == folder_bytes(paths.model("student-quantized")) < report["bytes"]["before"]
    assert set(report["parity"]) == set(limits) - {"slice_rows"}
    assert report["over"] == []
    quantize(asked(**METHODS[method], parity=limits | {"largest": 0}), paths)
    (over,) = read_json(paths.report("quantize.json"))["over"]
    assert re.fullmatch(r"largest = .*, at most 0 \(params.yaml: quantize.parity.largest\)", over)
