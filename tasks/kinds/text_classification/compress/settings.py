"""Settings of the stages distill, prune and quantize for texts."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from tasks.compress import settings
from tasks.compress.sgd import Sgd
from tasks.kinds.text_classification.compress.codebook import Codebook
from tasks.kinds.text_classification.compress.linear import Linear
from tasks.stage import Settings


class Crops(Settings):
    """Crops of training texts, used as texts of their own."""

    count: int = Field(ge=0)
    """Per text."""
    shares: tuple[float, float]
    """Smallest and largest share of a text's words in a crop."""
    weight: float = Field(gt=0)
    """Weight of a crop in the loss, where a whole text has 1."""


class Bag(Settings):
    bits: int | None = Field(ge=4, le=24)
    """In place of ``distill.bits``, since its rows are wide; None: use ``distill.bits``."""
    dimensions: int = Field(ge=1)
    hidden: int = Field(ge=0)
    """Width of the hidden layer; 0: none."""
    row_dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    """How the rows of words are initialised."""
    sgd: Sgd


class Cnn(Settings):
    words: int = Field(ge=1)
    """How many words and symbols of a text are read."""
    dimensions: int = Field(ge=1)
    kernel_sizes: list[int] = Field(min_length=1)
    """Widths of the filters, in words."""
    filters: int = Field(ge=1)
    """Filters per width."""
    dropout: float = Field(ge=0, lt=1)
    embeddings: Literal["random", "teacher"]
    sgd: Sgd


class Transformer(Settings):
    layers: list[int] | None
    """Numbers of the teacher's layers to keep, from 0; None: the first and the last."""
    sgd: Sgd


class Auto(settings.Auto):
    linear_labels: int = Field(ge=1)
    """With more labels the bag is tried in place of the linear student, whose table has a column per label."""


class Distill(settings.Distill):
    family: Literal["auto", "linear", "bag", "cnn", "transformer"]
    """Which of the four blocks below is used; ``auto``: several in turn, in the order of ``families``."""
    auto: Auto
    linear: Linear
    bag: Bag
    cnn: Cnn
    transformer: Transformer
    bits: int = Field(ge=4, le=24)
    """Width of the feature hash: the table has 2**bits rows, shared by words, bigrams and character n-grams."""
    char_ngrams: list[int]
    """linear, bag: lengths of the character n-grams used as features; words and bigrams always are."""
    known_bits: int = Field(ge=4, le=24)
    """Width of the word hashes by which a word seen in training is told from a new one."""
    min_documents: int = Field(ge=1)
    """Number of training texts a word must occur in to count as known."""
    crops: Crops

    @property
    def extra_weight(self) -> float:
        return self.crops.weight

    @property
    def torch_threads(self) -> int:
        """All cores for a transformer; the others gain from no more than they are given."""
        return self.threads if self.family != "transformer" else os.cpu_count() or 1


class Quantize(settings.Quantize):
    method: Literal["auto", "dynamic", "static", "codebook"]
    """``auto``: codebook for a student with a hashed embedding table, dynamic for a transformer."""
    codebook: Codebook
