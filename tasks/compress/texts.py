"""Additional unlabelled training texts (crops), and the teacher's logits for them."""

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
"""A crop of fewer words is too short to score."""


class Crops(Settings):
    """Crops of training texts, used as texts of their own."""

    count: int = Field(ge=0)
    """Per text."""
    shares: tuple[float, float]
    """Smallest and largest share of a text's words in a crop."""
    weight: float = Field(gt=0)
    """Weight of a crop in the loss, where a whole text has 1."""


def crops(texts: Sequence[str], settings: Crops, seed: int) -> list[str]:
    """Random runs of words of ``texts``, of lengths and positions decided by ``seed``; short texts give none."""
    rng = np.random.default_rng([seed, 2])
    pieces = []
    for text in texts:
        words = text.split(" ")
        for _ in range(settings.count):
            length = int(len(words) * rng.uniform(*settings.shares))
            start = int(rng.integers(len(words) - length + 1))
            if length >= CROP_WORDS:
                pieces.append(" ".join(words[start : start + length]))
    return pieces


def teacher_predict(teacher: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The teacher's logits ``float32[texts, labels]`` of at least one text."""
    model, tokenizer, shape = load_teacher(teacher)
    device = torch.device("cpu")
    windows = tokenize(tokenizer, texts, shape)
    return predict(model, windows, tokenizer.pad_token_id or 0, device, has_fast_bfloat16(device))
