"""More texts to learn from, which have no label: the teacher says what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from service.token_windows import tokenize
from tasks.model.teacher import has_fast_bfloat16, load_teacher, predict
from tasks.stage import Settings

CROP_WORDS = 20
"""A crop of fewer words says too little to be scored."""


class Crops(Settings):
    """Pieces of training texts as texts of their own."""

    count: int = Field(ge=0)
    """Of each text."""
    shares: tuple[float, float]
    """Between which part of a text's words a crop holds."""
    weight: float = Field(gt=0)
    """What a crop counts, where a text counts 1."""


def crops(texts: Sequence[str], settings: Crops, seed: int) -> list[str]:
    """Runs of words of ``texts``, of a length and at a place that ``seed`` decides; short texts give none."""
    rng = np.random.default_rng([seed, 2])
    pieces = []
    for text in texts:
        words = text.split(" ")
        for _ in range(settings.count):
            length = int(len(words) * rng.uniform(*settings.shares))
            begin = int(rng.integers(len(words) - length + 1))
            if length >= CROP_WORDS:
                pieces.append(" ".join(words[begin : begin + length]))
    return pieces


def ask_teacher(teacher: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The teacher's logits ``float32[texts, labels]`` of at least one text."""
    model, tokenizer, shape = load_teacher(teacher)
    device = torch.device("cpu")
    windows = tokenize(tokenizer, texts, shape)
    return predict(model, windows, tokenizer.pad_token_id or 0, device, has_fast_bfloat16(device))
