"""Word vectors of a student that start as its teacher's, brought down to its dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from service.tokenizer import Tokenizer, words_of
from tasks.model.teacher import load_teacher

SPREAD = 0.1
"""Standard deviation of the first component: that of rows that start from chance."""


def principal(vectors: npt.NDArray[np.float32], dimensions: int) -> npt.NDArray[np.float32]:
    """``[n, dimensions]``: the vectors' leading principal components (Pearson 1901), the first of deviation ``SPREAD``."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes[:dimensions].T
    components: npt.NDArray[np.float32] = (turned * (SPREAD / turned[:, 0].std())).astype(np.float32)
    return components


def start_from_teacher(embedding: nn.Embedding, tokenizer: Tokenizer, teacher: Path) -> int:
    """Give the row of each whole word in the teacher's vocabulary its vector there; how many words there were.

    Words that share a row share the mean. Rows of other features stay as they are. A student wider than its teacher's
    vectors gets as many components as there are.
    """
    model, pieces, _ = load_teacher(teacher)
    weights = model.encoder.get_input_embeddings().weight.detach().numpy()  # type: ignore[operator]
    vocabulary = [(word, number) for word, number in sorted(pieces.get_vocab().items()) if words_of(word) == [word]]
    alone = Tokenizer([], tokenizer.bits, tokenizer.known, tokenizer.salt, words=1)
    rows = np.array([int(alone.encode(word)[0]) for word, _ in vocabulary])
    vectors = principal(weights[[number for _, number in vocabulary]], embedding.embedding_dim)
    sums, counts = np.zeros((tokenizer.rows, vectors.shape[1])), np.bincount(rows, minlength=tokenizer.rows)
    np.add.at(sums, rows, vectors)
    taken = np.flatnonzero(counts)
    with torch.no_grad():
        means = torch.from_numpy(sums[taken] / counts[taken, None]).to(embedding.weight.dtype)
        embedding.weight[torch.from_numpy(taken), : vectors.shape[1]] = means
    return len(vocabulary)
