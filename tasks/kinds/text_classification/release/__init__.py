"""Text classification, its release part: probe texts, and what the card says (``tasks.kinds.ReleasePart``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from service.kinds.text_classification.tokenizer import words_of
from tasks.release import settings
from tasks.stage import StageError

TASK = "text classification into {labels}"
PROBE_DOCUMENTS = 10
"""Texts that a word of a probe stands in, at least: a name or a number that only a few hold is in none."""


SHOWN_CHARACTERS = 300
"""Of a text on a page."""


class ServingLimits(settings.ServingLimits):
    characters: int


class Package(settings.Package):
    probe_words: int
    """Words of a probe."""
    limits: ServingLimits


def probes(rows: pd.DataFrame, settings: Package) -> list[str]:
    """Texts of random words, each of which stands in many of the rows' inputs: they exercise the model and quote nobody."""
    return probe_texts(list(rows.input), settings.probes, settings.probe_words, settings.seed)


def probe_texts(texts: Sequence[str], count: int, length: int, seed: int) -> list[str]:
    """``count`` texts of ``length`` words. Raises StageError where no word stands in enough of ``texts``."""
    documents = Counter(word for text in texts for word in set(words_of(text)))
    words = sorted(word for word, number in documents.items() if number >= PROBE_DOCUMENTS)
    if not words:
        raise StageError(f"no word stands in {PROBE_DOCUMENTS} of {len(texts)} texts: there is nothing to make probe texts of")
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(np.array(words, dtype=object), size=length)) for _ in range(count)]


def show(raw: str) -> dict[str, str]:
    return {"text": raw[:SHOWN_CHARACTERS]}


def cautions(schema: Mapping[str, Any]) -> list[str]:
    return [f"It reads the first {schema['normaliser']['characters']} characters of a normalised text."]
