"""A student whose inputs are rows of a hashed embedding table, in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from service.kinds.text_classification.tokenizer import Tokenizer, pad
from tasks.compress.student import BATCH
from tasks.kinds.text_classification.compress.networks import Convolution, Network, save_student


class Hashed:
    """A student whose inputs are rows of a hashed embedding table."""

    def __init__(self, network: Network | Convolution, tokenizer: Tokenizer) -> None:
        self.network: Network | Convolution = network
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Sequence[npt.NDArray[np.int64]]:
        return [self.tokenizer.encode(text) for text in texts]

    def forward(self, encoded: Sequence[npt.NDArray[np.int64]]) -> Tensor:
        logits: Tensor = self.network(torch.from_numpy(pad(encoded)))
        return logits

    def outputs(self, encoded: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        self.network.eval()
        with torch.inference_mode():
            parts = [self.forward(encoded[start : start + BATCH]).numpy() for start in range(0, len(encoded), BATCH)]
        return np.concatenate(parts)

    def save(self, folder: Path, opset: int) -> None:
        save_student(self.network, self.tokenizer, folder, opset)
