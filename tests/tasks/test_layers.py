"""The teacher's layers: found wherever an encoder keeps them; some can be left out, and the lowest can stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from tasks.kinds.text_classification.compress.transformer import keep_layers
from tasks.kinds.text_classification.model.teacher import Teacher, freeze, layers_of, load_encoder
from tasks.stage import StageError
from tests.tasks.test_train import made_training, settings_for, weights_of


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


@pytest.mark.parametrize("frozen", [None, 0, 1, 2])
def test_frozen_layers_are_as_they_were_pre_trained_and_the_others_learn(
    tiny_teacher: Path, tmp_path: Path, frozen: int | None
) -> None:
    settings = settings_for(tiny_teacher, frozen_layers=frozen, epochs=1)
    training = made_training(settings, tmp_path)
    before = {name: tensor.clone() for name, tensor in weights_of(training).items()}
    training.fit(None)
    moved = {name for name, tensor in weights_of(training).items() if not torch.equal(tensor, before[name])}
    for layer in (0, 1):
        assert any(f"layer.{layer}." in name for name in moved) == (frozen is None or layer >= frozen), layer
    assert any("embeddings" in name for name in moved) == (frozen is None)
    assert "head.weight" in moved


def test_more_frozen_layers_than_there_are_is_an_error_that_says_how_many(tiny_teacher: Path) -> None:
    encoder, _ = load_encoder(str(tiny_teacher))
    with pytest.raises(StageError, match=r"train\.frozen_layers = 3: the teacher has 2 layers"):
        freeze(Teacher(encoder, 2, 0.0), 3)
