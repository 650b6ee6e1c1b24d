"""The teacher network: a pre-trained transformer encoder, mean pooling, one linear layer.

Mean pooling over the unmasked positions is how sentence encoders are trained (Reimers and Gurevych 2019), and works for any
encoder that transformers loads, with or without a classification token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from service.kinds.text_classification.token_windows import TokenWindows, collate, flatten, merge
from tasks.files import read_json, write_json
from tasks.model.pretrained import located
from tasks.stage import StageError


class Teacher(nn.Module):
    """Logits from token ids and attention mask: ``int64[batch, tokens]`` twice -> ``float[batch, labels]``."""

    def __init__(self, encoder: nn.Module, labels: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.hidden_size, labels)  # type: ignore[union-attr,arg-type]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits: Tensor = self.head(self.dropout(pooled))
        return logits


def load_encoder(model: str) -> tuple[nn.Module, Any]:
    """(encoder, tokenizer) of ``train.model``. Raises StageError that lists where it was looked for."""
    with located(model) as source:
        # Eager attention is the fastest under bfloat16 on a CPU at these lengths, and the simplest to export.
        encoder = AutoModel.from_pretrained(source, attn_implementation="eager", dtype=torch.float32)
        return encoder, AutoTokenizer.from_pretrained(source)


def save_teacher(model: Teacher, tokenizer: Any, folder: Path, shape: TokenWindows) -> None:
    model.encoder.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    save_file({name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}, folder / "head.safetensors")
    write_json(folder / "variant.json", {"kind": "text_classification", "format": "teacher", "windows": asdict(shape)})


def load_teacher(folder: Path) -> tuple[Teacher, Any, TokenWindows]:
    """(teacher in evaluation mode, tokenizer, windows) as saved by ``save_teacher``."""
    encoder, tokenizer = load_encoder(str(folder))
    head = load_file(folder / "head.safetensors")
    model = Teacher(encoder, labels=head["weight"].shape[0], dropout=0.0)
    model.head.load_state_dict(head)
    return model.eval(), tokenizer, TokenWindows(**read_json(folder / "variant.json")["windows"])


def place_of_layers(model: Teacher) -> tuple[nn.Module, str]:
    """(module, attribute) of the encoder's list of layers: the only list of as many layers as its configuration says.

    Raises StageError for an encoder without such a list, such as one whose layers share their weights.
    """
    count = model.encoder.config.num_hidden_layers  # type: ignore[union-attr]
    for module in model.encoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise StageError(
        f"train.model: {type(model.encoder).__name__} has no list of {count} layers to choose from: "
        "take another model, or do without what needs them (train.frozen_layers: null, prune and distill of whole layers)"
    )


def layers_of(model: Teacher) -> nn.ModuleList:
    """The encoder's layers. Raises StageError for an encoder without a list of layers."""
    layers: nn.ModuleList = getattr(*place_of_layers(model))
    return layers


def freeze(model: Teacher, layers: int) -> None:
    """Freeze the embeddings and the lowest ``layers`` layers: no gradient is computed for them.

    Raises StageError for more layers than there are, or an encoder without a list of layers.
    """
    if not 0 <= layers <= (count := len(layers_of(model))):
        raise StageError(f"train.frozen_layers = {layers}: the teacher has {count} layers")
    trainable = {id(parameter) for layer in layers_of(model)[layers:] for parameter in layer.parameters()}
    for parameter in model.encoder.parameters():
        parameter.requires_grad = id(parameter) in trainable


def predict(
    model: nn.Module,
    windows: Sequence[Sequence[list[int]]],
    padding: int,
    device: torch.device,
    bfloat16: bool,
    batch: int = 64,
    desc: str | None = None,
) -> npt.NDArray[np.float32]:
    """Logits ``float32[texts, labels]`` of tokenized texts, in the order given; ``desc`` names a progress bar."""
    flat = flatten(windows)
    parts = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for start in tqdm(range(0, len(flat), batch), desc=desc, unit=" batches", mininterval=1, disable=desc is None):
            ids, mask = map(torch.from_numpy, collate([window for _, window in flat[start : start + batch]], padding))
            parts.append(model(ids.to(device), mask.to(device)).float().cpu().numpy())
    return merge(flat, np.concatenate(parts), len(windows))
