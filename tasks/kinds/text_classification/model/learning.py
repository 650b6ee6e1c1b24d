"""The teacher as the stages train it, score it and save it (``tasks.kinds.Teacher``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.kinds.text_classification.token_windows import TokenWindows, collate, tokenize
from tasks.kinds.text_classification.model import teacher
from tasks.kinds.text_classification.model.batches import epoch_batches, epoch_windows
from tasks.kinds.text_classification.model.export import write_transformer
from tasks.kinds.text_classification.model.settings import Train

Windows = list[list[int]]
"""The windows of one text."""


class TransformerTeacher:
    """A pre-trained encoder under a linear layer, with its tokenizer; a text is read in windows."""

    def __init__(self, model: teacher.Teacher, tokenizer: Any, shape: TokenWindows) -> None:
        self.network, self.tokenizer, self.shape = model, tokenizer, shape
        self.padding: int = tokenizer.pad_token_id or 0

    def parameter_groups(self, settings: Train) -> list[dict[str, Any]]:
        encoder = [parameter for parameter in self.network.encoder.parameters() if parameter.requires_grad]
        return [
            {"params": encoder, "lr": settings.learning_rate},
            {"params": self.network.head.parameters(), "lr": settings.head_learning_rate},
        ]

    def encode(self, inputs: Sequence[str]) -> list[Windows]:
        return tokenize(self.tokenizer, inputs, self.shape)

    def epoch(
        self, encoded: Sequence[Windows], batch_size: int, seed: int, number: int, start: int
    ) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:
        """Batches of similar lengths; of each text the window of this epoch. Tensors: token ids, attention mask."""
        windows = epoch_windows(encoded, seed, number)
        for rows in epoch_batches([len(window) for window in windows], batch_size, seed, number)[start:]:
            ids, mask = collate([windows[row] for row in rows], self.padding)
            yield rows, (torch.from_numpy(ids), torch.from_numpy(mask))

    def predict(
        self, encoded: Sequence[Windows], device: torch.device, bfloat16: bool, desc: str | None = None
    ) -> npt.NDArray[np.float32]:
        return teacher.predict(self.network, encoded, self.padding, device, bfloat16, desc=desc)

    def save(self, folder: Path) -> None:
        teacher.save_teacher(self.network, self.tokenizer, folder, self.shape)

    def export(self, folder: Path, opset: int) -> None:
        write_transformer(self.network, self.tokenizer, self.shape, folder, opset)


def new_teacher(settings: Train, labels: int, schema: Mapping[str, Any]) -> TransformerTeacher:
    """The pre-trained encoder with a new head. Raises StageError for one that cannot be loaded, or has fewer layers."""
    encoder, tokenizer = teacher.load_encoder(settings.model)
    model = teacher.Teacher(encoder, labels, settings.dropout)
    if settings.frozen_layers is not None:
        teacher.freeze(model, settings.frozen_layers)
    return TransformerTeacher(model, tokenizer, TokenWindows(settings.window_tokens, settings.windows))


def load_teacher(folder: Path) -> TransformerTeacher:
    """The teacher as saved, in evaluation mode."""
    return TransformerTeacher(*teacher.load_teacher(folder))
