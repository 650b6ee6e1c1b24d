"""Settings of the stages baseline and train for texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.model import settings


class Baseline(settings.Baseline):
    analyzer: Literal["word", "char", "char_wb"]
    ngrams: tuple[int, int]
    """Shortest and longest n-gram."""
    min_documents: int
    features: int
    """At most this many n-grams are kept, the most frequent ones."""


class Train(settings.Train):
    model: str
    """A folder that transformers loads, an installed package with MODEL_DIR, or a name in the hub's local cache."""
    window_tokens: int = Field(ge=8)
    """Longest window, special tokens included."""
    windows: int = Field(ge=1)
    """Most windows per text; training uses one of them per epoch, scoring uses all."""
    head_learning_rate: float = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    frozen_layers: int | None = Field(ge=0)
    """The embeddings and this many of the lowest layers stay as pre-trained; null: everything is trained."""
