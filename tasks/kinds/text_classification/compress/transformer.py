"""Transformer students: the teacher's export to ONNX, and the teacher reduced to some of its layers.

A thin transformer is initialised from the teacher without the other layers (Sun et al. 2019, Sanh et al. 2019). It tokenizes
text as the teacher does, and is as slow at that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.kinds.text_classification.token_windows import collate, tokenize
from tasks.files import read_json, write_json
from tasks.kinds.text_classification.compress.networks import save_known
from tasks.kinds.text_classification.model.batches import FIRST_WINDOW
from tasks.kinds.text_classification.model.export import write_transformer
from tasks.kinds.text_classification.model.teacher import (
    Teacher,
    layers_of,
    load_teacher,
    place_of_layers,
    predict,
)
from tasks.model.device import CPU, has_fast_bfloat16
from tasks.stage import StageError


def keep_layers(model: Teacher, numbers: Sequence[int], where: str) -> None:
    """Keep only the layers of these numbers, counted from 0, in their order.

    Raises StageError for a number that does not exist; ``where`` is the parameter that named it.
    """
    parent, name = place_of_layers(model)
    layers = layers_of(model)
    if not numbers or any(not 0 <= number < len(layers) for number in numbers) or list(numbers) != sorted(set(numbers)):
        raise StageError(f"{where} = {list(numbers)}: the teacher has the layers 0 to {len(layers) - 1}")
    setattr(parent, name, nn.ModuleList(layers[number] for number in numbers))
    model.encoder.config.num_hidden_layers = len(numbers)  # type: ignore[union-attr]


class Thin:
    """The teacher with its tokenizer and windows, to be trained further once ``keep_layers`` has removed some of its layers."""

    def __init__(self, teacher: Path) -> None:
        self.network, self._tokenizer, self._shape = load_teacher(teacher)
        self._padding = self._tokenizer.pad_token_id or 0
        self._bfloat16 = has_fast_bfloat16(CPU)

    def encode(self, texts: Sequence[str]) -> Sequence[list[list[int]]]:
        return tokenize(self._tokenizer, texts, self._shape)

    def forward(self, encoded: Sequence[list[list[int]]]) -> Tensor:
        """Logits of one window per text, drawn as in the teacher's training: often the first, else any."""
        draws = torch.rand((len(encoded), 2))
        windows = [
            text_windows[0] if first_draw < FIRST_WINDOW else text_windows[int(window_draw * len(text_windows))]
            for text_windows, (first_draw, window_draw) in zip(encoded, draws.tolist(), strict=True)
        ]
        ids, mask = map(torch.from_numpy, collate(windows, self._padding))
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            logits: Tensor = self.network(ids, mask)
        return logits.float()

    def outputs(self, encoded: Sequence[list[list[int]]]) -> npt.NDArray[np.float32]:
        self.network.eval()
        return predict(self.network, encoded, self._padding, CPU, bfloat16=False)  # float32, as it is served

    def save(self, folder: Path, opset: int) -> None:
        write_transformer(self.network.eval(), self._tokenizer, self._shape, folder, opset)


class ThinStudent(Thin):
    """A thin transformer that may be served: it keeps which words are new to it."""

    def __init__(self, teacher: Path, layers: Sequence[int] | None, known: npt.NDArray[np.bool_]) -> None:
        super().__init__(teacher)
        ends = sorted({0, len(layers_of(self.network)) - 1})
        keep_layers(self.network, ends if layers is None else layers, "distill.transformer.layers")
        self.known = known

    def save(self, folder: Path, opset: int) -> None:
        super().save(folder, opset)
        save_known(self.known, folder)
        settings = read_json(folder / "variant.json") | {"known_words": len(self.known)}
        write_json(folder / "variant.json", settings)
