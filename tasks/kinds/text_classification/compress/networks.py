"""Networks of the students that look up rows of a hashed embedding table, and their export to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from service.kinds.text_classification.tokenizer import PADDING, Tokenizer
from tasks.files import write_json
from tasks.onnx_file import write_onnx


class Network(nn.Module):
    """A bag of features: the sum of their embeddings divided by the root of their number, and an optional hidden layer.

    ``int64[batch, rows]`` -> ``float[batch, labels]``. The root is the L2 norm of the text as a binary vector, so this is a
    linear model's view of L2-normalised n-grams, with a few dimensions that allow more than a linear function. ``hidden`` =
    0: no hidden layer.

    In training, each row is dropped with probability ``row_dropout``, so that no single word decides.
    """

    sparse_tables = ("embedding",)

    def __init__(self, rows: int, dimensions: int, hidden: int, labels: int, row_dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, dimensions, padding_idx=PADDING)
        # Small: most rows of a hashed table see few messages or none in training and keep their initial values.
        nn.init.normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        self.hidden = nn.Linear(dimensions, hidden) if hidden else None
        self.head = nn.Linear(hidden or dimensions, labels)
        self.row_dropout = row_dropout
        # Identities for pruning to hook: the activations of each unit pass here.
        self.dimensions, self.units = nn.Identity(), nn.Identity()

    def pool(self, rows: Tensor) -> Tensor:
        """The pooled features ``float[batch, dimensions]``: the input of the layers after the embedding."""
        vectors = self.embedding(rows)  # zeros for padding, so the sum needs no mask
        present = (rows != PADDING).to(vectors.dtype)
        if self.training and self.row_dropout:
            present = present * (torch.rand_like(present) > self.row_dropout).to(vectors.dtype)
            vectors = vectors * present.unsqueeze(-1)
        pooled: Tensor = self.dimensions(vectors.sum(1) / present.sum(1, keepdim=True).clamp(min=1.0).sqrt())
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(pooled if self.hidden is None else self.units(torch.relu(self.hidden(pooled))))
        return logits

    def forward(self, rows: Tensor) -> Tensor:
        return self.classify(self.pool(rows))


class Convolution(nn.Module):
    """Words in order: convolutions of several widths, max-pooled over the text (Kim 2014).

    ``int64[batch, words]`` -> ``float[batch, labels]``. In training, pooled features are dropped with probability
    ``dropout``.
    """

    sparse_tables = ("embedding",)

    def __init__(
        self, rows: int, dimensions: int, kernel_sizes: Sequence[int], filters: int, labels: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, dimensions, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        self.convolutions = nn.ModuleList(nn.Conv1d(dimensions, filters, width) for width in kernel_sizes)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(kernel_sizes), labels)
        self.dimensions, self.units = nn.Identity(), nn.Identity()

    def pool(self, rows: Tensor) -> Tensor:
        """The pooled features ``float[batch, filters]`` of all widths; zero for a text without words."""
        vectors = self.dimensions(self.embedding(rows)).transpose(1, 2)
        present = (rows != PADDING).unsqueeze(1).to(vectors.dtype)
        parts = []
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d)
            # Pad so that a text may be shorter than a filter; windows that start after the last word are masked.
            width = int(convolution.weight.shape[2])
            activations = torch.relu(convolution(nn.functional.pad(vectors, (0, width - 1)))) * present
            parts.append(activations.amax(dim=2))
        pooled: Tensor = self.units(torch.cat(parts, dim=1))
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features."""
        logits: Tensor = self.head(self.dropout(pooled))
        return logits

    def forward(self, rows: Tensor) -> Tensor:
        return self.classify(self.pool(rows))


class Served(nn.Module):
    """The network as served: the logits, and the pooled features on which drift is monitored."""

    def __init__(self, network: Network | Convolution) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.network.pool(rows)
        return self.network.classify(pooled), pooled


def save_known(known: npt.NDArray[np.bool_], folder: Path) -> None:
    """Write which words were seen in training into ``words.npz``: drift is measured by it for every kind of student."""
    np.savez_compressed(folder / "words.npz", known=np.packbits(known))


def save_student(network: Network | Convolution, tokenizer: Tokenizer, folder: Path, opset: int) -> None:
    """Write ``model.onnx``, ``words.npz`` and ``variant.json`` into an empty folder."""
    save_known(tokenizer.known, folder)
    shapes = {"rows": {0: torch.export.Dim("texts"), 1: torch.export.Dim("length")}}
    example = {"rows": torch.ones((2, 3), dtype=torch.long)}
    write_onnx(Served(network), example, ("logits", "features"), shapes, folder / "model.onnx", opset)
    count = sum(parameter.numel() for parameter in network.parameters())
    shape = {
        "char_ngrams": list(tokenizer.char_ngrams),
        "bits": tokenizer.bits,
        "salt": tokenizer.salt,
        "words": tokenizer.words,
        "known_words": len(tokenizer.known),
    }
    write_json(folder / "variant.json", {"kind": "text_classification", "format": "student", "parameters": count, **shape})
