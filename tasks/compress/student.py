"""The student as a network, and its way into ONNX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from service.tokenizer import PADDING, Tokenizer, words_of
from tasks.compress.onnx_file import write_onnx
from tasks.stage import write_json


class Network(nn.Module):
    """A bag of rows: the sum of their vectors by the root of their number, one hidden layer.

    ``int64[batch, rows]`` -> ``float[batch, labels]``. The root is the length of the text as a binary vector, so this
    is what a linear model sees of normalised n-grams, with a few dimensions to be more than linear in.

    While training, each row is left out with probability ``row_dropout``, so no single word decides.
    """

    def __init__(self, rows: int, dimensions: int, hidden: int, labels: int, row_dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, dimensions, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        self.hidden = nn.Linear(dimensions, hidden)
        self.head = nn.Linear(hidden, labels)
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
        logits: Tensor = self.head(torch.relu(self.hidden(pooled)))
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


def choose_vocabulary(texts: Sequence[str], size: int, min_documents: int) -> list[str]:
    """The ``size`` words that stand in the most texts, and in ``min_documents`` at least; ties in word order."""
    documents = Counter(word for text in texts for word in set(words_of(text)))
    frequent = [(word, count) for word, count in documents.items() if count >= min_documents]
    return [word for word, _ in sorted(frequent, key=lambda pair: (-pair[1], pair[0]))[:size]]


def save_student(network: Network, tokenizer: Tokenizer, folder: Path, opset: int) -> None:
    """Write ``model.onnx``, ``vocabulary.txt`` and ``variant.json`` into an empty folder."""
    (folder / "vocabulary.txt").write_text("\n".join(tokenizer.words), encoding="utf-8")
    shapes = {"rows": {0: torch.export.Dim("texts"), 1: torch.export.Dim("length")}}
    example = {"rows": torch.ones((2, 3), dtype=torch.long)}
    write_onnx(Served(network), example, ("logits", "features"), shapes, folder / "model.onnx", opset)
    count = sum(parameter.numel() for parameter in network.parameters())
    shape = {"buckets": tokenizer.buckets, "gram": tokenizer.gram, "gram_buckets": tokenizer.gram_buckets}
    write_json(folder / "variant.json", {"kind": "student", "parameters": count, **shape})
