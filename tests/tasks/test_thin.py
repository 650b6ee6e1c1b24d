"""The stage thin on the tiny teacher: layers are gone, what is left learned, and what it lost is said and fails nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModel

from tasks.compress.thin import Thin, thin
from tasks.compress.transformer import keep_layers, layers_of
from tasks.metrics import ranking
from tasks.model.teacher import Teacher
from tasks.model.variants import load_variant
from tasks.stage import Paths, StageError, folder_bytes, read_json, write_json
from tests.conftest import made_prepared
from tests.imports import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["thin"]
DESCENT = {"epochs": 8, "batch_size": 16, "learning_rate": 0.005, "weight_decay": 0.01}


@pytest.fixture
def paths(own_store: None, fine_tuned: Path, tmp_path: Path) -> Paths:
    """A project with a teacher that was never trained, whose logits all the same say what is true."""
    paths = Paths(tmp_path)
    paths.prepared.parent.mkdir()
    paths.models.mkdir()
    paths.model("teacher").symlink_to(fine_tuned)
    frame = made_prepared(["ham", "spam"], 350)
    frame.to_parquet(paths.prepared)
    write_json(paths.schema, {"labels": ["ham", "spam"], "positive": "spam"})
    seen = frame[frame.split.isin(["train", "valid"])]
    with paths.logits.open("wb") as file:
        np.savez(file, ids=seen.id.to_numpy(dtype=str), logits=np.eye(2, dtype=np.float32)[seen.label_id] * 4)
    return paths


def made(paths: Paths, **changes: Any) -> dict[str, Any]:
    thin(Thin.model_validate(PARAMS | {"descent": DESCENT, "threads": 1} | changes), paths)
    report: dict[str, Any] = read_json(paths.report("thin.json"))
    return report


def test_a_thin_teacher_is_smaller_and_learns_what_the_teacher_says(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    report = made(paths)
    frame = pd.read_parquet(paths.prepared)
    test = frame[frame.split == "test"]
    found, whole = load_variant(paths.model("teacher-thin"), 1), load_variant(paths.model("teacher"), 1)
    assert found.parameters < whole.parameters
    assert report["bytes"] == folder_bytes(paths.model("teacher-thin")) < folder_bytes(paths.model("teacher"))
    assert ranking(found.logits(list(test.text)), test.label_id.to_numpy())["pr_auc"] > 0.85
    assert [seen["epoch"] for seen in report["history"]] == list(range(1, 9))
    assert "1 layers, " in capsys.readouterr().out


def test_twice_the_same_seed_gives_the_same_files(paths: Paths) -> None:
    short = DESCENT | {"epochs": 1}
    made(paths, descent=short)
    first = {path.name: path.read_bytes() for path in paths.model("teacher-thin").iterdir()}
    made(paths, descent=short)
    assert {path.name: path.read_bytes() for path in paths.model("teacher-thin").iterdir()} == first


def test_a_thin_teacher_that_is_not_the_teacher_is_said_and_fails_nothing(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    report = made(paths, descent=DESCENT | {"epochs": 1, "learning_rate": 1e-9}, parity=PARAMS["parity"] | {"mean": 0})
    assert any("(params.yaml: thin.parity.mean)" in line for line in report["over"])
    assert "the thin teacher is not the teacher: " in capsys.readouterr().out
    assert paths.model("teacher-thin").exists()


def test_one_layer_of_one_is_the_teacher_whole(paths: Paths) -> None:
    made(paths, every=1, descent=DESCENT | {"epochs": 1})
    found, whole = load_variant(paths.model("teacher-thin"), 1), load_variant(paths.model("teacher"), 1)
    assert found.parameters == whole.parameters


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_layers_are_found_wherever_an_encoder_keeps_them(kind: str) -> None:
    size = {"bert": {"hidden_size": 8, "intermediate_size": 8}, "distilbert": {"dim": 8, "hidden_dim": 8}}[kind]
    heads = {"bert": "num_attention_heads", "distilbert": "n_heads"}[kind]
    deep = {"bert": "num_hidden_layers", "distilbert": "n_layers"}[kind]
    encoder = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=9, **size, **{heads: 2, deep: 4}))
    teacher = Teacher(encoder, 2, 0.0)
    second = layers_of(teacher)[2]
    keep_layers(teacher, [0, 2], "here")
    assert len(layers_of(teacher)) == 2
    assert layers_of(teacher)[1] is second
    assert teacher(torch.tensor([[1, 2]]), torch.ones((1, 2), dtype=torch.long)).shape == (1, 2)


def test_an_encoder_whose_layers_are_one_and_the_same_is_an_error_that_names_it() -> None:
    shape = {"vocab_size": 9, "embedding_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    encoder = AutoModel.from_config(AutoConfig.for_model("albert", num_hidden_layers=4, **shape))
    with pytest.raises(StageError, match=r"train\.model: AlbertModel has no list of 4 layers"):
        layers_of(Teacher(encoder, 2, 0.0))
