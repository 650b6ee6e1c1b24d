"""Text classification, its compress part: students (``tasks.kinds.CompressPart``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.kinds.text_classification.tokenizer import known_words, read_known
from tasks.compress.settings import Prune
from tasks.files import read_json
from tasks.kinds.text_classification.compress.crops import crops
from tasks.kinds.text_classification.compress.families import families, forecast, learn, new_student
from tasks.kinds.text_classification.compress.pruning import remove_share
from tasks.kinds.text_classification.compress.quantization import quantize_student
from tasks.kinds.text_classification.compress.settings import Distill, Quantize

__all__ = [
    "Distill",
    "Prune",
    "Quantize",
    "context",
    "extra_inputs",
    "families",
    "forecast",
    "learn",
    "new_student",
    "quantize_student",
    "remove_share",
    "saved_context",
]


def context(inputs: Sequence[str], settings: Distill) -> npt.NDArray[np.bool_]:
    """Which word hashes training saw: students tell a new word from a known one."""
    return known_words(inputs, settings.min_documents, settings.known_bits)


def saved_context(folder: Path) -> npt.NDArray[np.bool_]:
    return read_known(folder, read_json(folder / "variant.json")["known_words"])


def extra_inputs(inputs: Sequence[str], settings: Distill, teacher: Path) -> list[str]:
    return crops(inputs, settings.crops, settings.seed)
