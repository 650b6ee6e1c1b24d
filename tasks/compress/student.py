"""The student as a network, and its way into ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.tokenizer import PADDING, Tokenizer
from tasks.compress.onnx_file import write_onnx
from tasks.stage import write_json


class Network(nn.Module):
    """A bag of rows: the sum of their vectors by the root of their number, and a hidden layer, if ``hidden`` is not 0.

    ``int64[batch, rows]`` -> ``float[batch, labels]``. The root is the length of the text as a binary vector, so this
    is what a linear model sees of normalised n-grams, with a few dimensions to be more than linear in.

    While training, each row is left out with probability ``row_dropout``, so no single word decides.
    """

    def __init__(self, rows: int, dimensions: int, hidden: int, labels: int, row_dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, dimensions, padding_idx=PADDING)
        # Small: most rows of a hashed table are learned from few messages or from none, and what they began with stays.
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        self.hidden = nn.Linear(dimensions, hidden) if hidden else None
        self.head = nn.Linear(hidden or dimensions, labels)
        self.row_dropout = row_dropout

    def pool(self, rows: Tensor) -> Tensor:
        """The pooled features ``float[batch, dimensions]``: all that the layers behind see of a text."""
        vectors = self.embedding(rows)
        present = (rows != PADDING).unsqueeze(-1).to(vectors.dtype)
        if self.training and self.row_dropout:
            present = present * (torch.rand_like(present) > self.row_dropout).to(vectors.dtype)
        pooled: Tensor = (vectors * present).sum(1) / present.sum(1).clamp(min=1.0).sqrt()
        return pooled

    def judge(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(pooled if self.hidden is None else torch.relu(self.hidden(pooled)))
        return logits

    def forward(self, rows: Tensor) -> Tensor:
        return self.judge(self.pool(rows))


class Served(nn.Module):
    """The network as it is served: the logits, and beside them the pooled features that drift is watched on."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.network.pool(rows)
        return self.network.judge(pooled), pooled


def save_student(network: Network, tokenizer: Tokenizer, folder: Path, opset: int) -> None:
    """Write ``model.onnx``, ``words.npz`` and ``variant.json`` into an empty folder."""
    np.savez_compressed(folder / "words.npz", known=np.packbits(tokenizer.known))
    shapes = {"rows": {0: torch.export.Dim("texts"), 1: torch.export.Dim("length")}}
    example = {"rows": torch.ones((2, 3), dtype=torch.long)}
    write_onnx(Served(network), example, ("logits", "features"), shapes, folder / "model.onnx", opset)
    count = sum(parameter.numel() for parameter in network.parameters())
    shape = {"grams": list(tokenizer.grams), "bits": tokenizer.bits, "known_words": len(tokenizer.known)}
    write_json(folder / "variant.json", {"kind": "student", "parameters": count, **shape})
