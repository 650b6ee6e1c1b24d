"""The stage export on the tiny teacher: ONNX that agrees, and twins that are smaller, answer, and are reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

from service.kinds.text_classification.token_windows import TokenWindows
from tasks.compress.export import Export, export
from tasks.files import folder_bytes, read_json, write_json
from tasks.kinds.text_classification.model.teacher import Teacher, load_encoder, save_teacher
from tasks.model.variants import load_variant
from tasks.stage import Paths, StageError
from tests.conftest import KIND, assert_no_product_saturates, made_prepared
from tests.imports import MAIL, ROOT

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["export"]
TEXTS = ["winner prize money free cash", "kernel patch review of the branch", "the a of and"]


def settings(**int8: Any) -> Export:
    return Export.model_validate(PARAMS | {"parity_inputs": 8, "int8": PARAMS["int8"] | int8})


@pytest.fixture(scope="module")
def paths(tiny_teacher: Path, mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A project with a teacher that was never trained, and what export makes of it."""
    paths = Paths(tmp_path_factory.mktemp("export"))
    paths.prepared.parent.mkdir()
    paths.model("teacher").mkdir(parents=True)
    frame = made_prepared(["ham", "spam"], 350)
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"kind": KIND, "labels": ["ham", "spam"], "positive": "spam"})
    encoder, tokenizer = load_encoder(str(tiny_teacher))
    torch.manual_seed(0)
    save_teacher(Teacher(encoder, 2, 0.0), tokenizer, paths.model("teacher"), TokenWindows(24, 2))
    with paths.logits.open("wb") as file:
        said = load_variant(paths.model("teacher"), 1).logits(list(frame.input))
        np.savez(file, ids=frame.id.to_numpy(dtype=str), logits=said)
    shutil.copy2(mlflow_store, paths.root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        export(settings(), paths)
    return paths


def test_the_int8_teacher_is_smaller_and_answers_as_any_variant(paths: Paths) -> None:
    full, small = paths.model("teacher-onnx"), paths.model("teacher-int8")
    assert folder_bytes(small) < folder_bytes(full)
    assert (small / "model.onnx").stat().st_size < 0.6 * (full / "model.onnx").stat().st_size
    before, after = (load_variant(folder, 1) for folder in (full, small))
    assert before.parameters == after.parameters
    assert after.logits(TEXTS) == pytest.approx(before.logits(TEXTS), abs=0.2)
    assert not np.array_equal(after.logits(TEXTS), before.logits(TEXTS)), "something was quantized"
    weights = [tensor for tensor in onnx.load(small / "model.onnx").graph.initializer if len(tensor.dims) == 2]
    kinds = {tensor.data_type for tensor in weights if min(tensor.dims) > 2}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}, "layers and tables: none was left in float32"


def test_the_int8_teacher_answers_alike_where_bytes_are_multiplied_in_16_bits(paths: Paths) -> None:
    assert_no_product_saturates(paths.model("teacher-int8") / "model.onnx")


def test_parity_of_the_int8_teacher_is_reported(paths: Paths) -> None:
    report = read_json(paths.report("export.json"))
    assert set(report["parity"]) == {"largest", "mean", "disagreement_rate"}
    assert set(report["int8"]["parity"]) == {"largest", "mean", "disagreement_rate", "threshold_disagreement", "worst_slice"}
    assert report["int8"]["parity"]["largest"] > report["parity"]["largest"]
    assert report["int8"]["bytes"] == folder_bytes(paths.model("teacher-int8")) < report["bytes"]


def test_an_int8_teacher_that_is_not_the_teacher_is_said_and_fails_nothing(
    paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    export(settings(parity=PARAMS["int8"]["parity"] | {"largest": 0}), paths)
    (line,) = [line for line in read_json(paths.report("export.json"))["int8"]["over"] if "largest" in line]
    assert line.endswith("at most 0 (params.yaml: export.int8.parity.largest)")
    assert line in capsys.readouterr().out
    with pytest.raises(StageError, match=r"largest = .* at most 0 \(params.yaml: export.parity.largest\)"):
        export(settings().model_copy(update={"parity": settings().parity.model_copy(update={"largest": 0})}), paths)


def test_quantizing_the_teacher_twice_gives_the_same_bytes(paths: Paths, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.compress.int8 import write_int8;"
        f"write_int8(Path(sys.argv[1]), Path(sys.argv[2]), {PARAMS['int8']['operators']}, {PARAMS['int8']['per_channel']})"
    )
    model = str(paths.model("teacher-onnx") / "model.onnx")
    subprocess.run([sys.executable, "-c", code, model, str(tmp_path / "again.onnx")], cwd=ROOT, check=True)
    assert (tmp_path / "again.onnx").read_bytes() == (paths.model("teacher-int8") / "model.onnx").read_bytes()
