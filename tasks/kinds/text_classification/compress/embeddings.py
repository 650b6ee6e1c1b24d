"""Word embeddings of a student initialised from its teacher's, reduced to the student's dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from service.kinds.text_classification.tokenizer import Tokenizer, words_of
from tasks.kinds.text_classification.model.teacher import load_teacher

SPREAD = 0.1
"""Standard deviation of the first component, as of randomly initialised rows."""


def principal(vectors: npt.NDArray[np.float32], dimensions: int) -> npt.NDArray[np.float32]:
    """``[n, dimensions]``: the leading principal components (Pearson 1901), the first of standard deviation ``SPREAD``."""
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ axes[:dimensions].T
    components: npt.NDArray[np.float32] = (projected * (SPREAD / projected[:, 0].std())).astype(np.float32)
    return components


def start_from_teacher(embedding: nn.Embedding, tokenizer: Tokenizer, teacher: Path) -> int:
    """Initialise the row of each whole word in the teacher's vocabulary with its vector there; returns the number of words.

    Words that share a row get their mean. Rows of other features stay as they are. A student wider than its teacher's vectors
    gets as many components as there are.
    """
    model, teacher_tokenizer, _ = load_teacher(teacher)
    weights = model.encoder.get_input_embeddings().weight.detach().numpy()  # type: ignore[operator]
    vocabulary = [(word, number) for word, number in sorted(teacher_tokenizer.get_vocab().items()) if words_of(word) == [word]]
    word_tokenizer = Tokenizer([], tokenizer.bits, tokenizer.known, tokenizer.salt, words=1)
    rows = np.array([int(word_tokenizer.encode(word)[0]) for word, _ in vocabulary])
    vectors = principal(weights[[number for _, number in vocabulary]], embedding.embedding_dim)
    sums, counts = np.zeros((tokenizer.rows, vectors.shape[1])), np.bincount(rows, minlength=tokenizer.rows)
    np.add.at(sums, rows, vectors)
    used = np.flatnonzero(counts)
    with torch.no_grad():
        means = torch.from_numpy(sums[used] / counts[used, None]).to(embedding.weight.dtype)
        embedding.weight[torch.from_numpy(used), : vectors.shape[1]] = means
    return len(vocabulary)
