"""Texts of the corpus as the model reads them, made by the serving half's own normaliser."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from service.kinds.text_classification.text import RAW_CHARACTERS_PER_KEPT, Normaliser, document
from tasks.kinds import Prepared
from tasks.kinds.text_classification.data.settings import Prepare

_WORD = re.compile(r"\w+")


def prepare_inputs(rows: pd.DataFrame, settings: Prepare) -> Prepared:
    """Subject and text joined and normalised; the counts say how many texts each step changed. Raises ValueError."""
    try:
        normaliser = Normaliser.from_settings(serving_settings(settings)["normaliser"])
    except ValueError as error:
        raise ValueError(f"normalise: {error}") from error
    counts = {
        "missing_subject": int((rows.subject.fillna("") == "").sum()),
        "missing_text": int((rows.text.fillna("") == "").sum()),
    }
    raws = [document(subject, text) for subject, text in zip(rows.subject, rows.text, strict=True)]
    texts = raws
    for number, step in enumerate(settings.normalise, start=1):
        # Applied step by step for the counts only; the final text comes from the one call below.
        before, texts = texts, [Normaliser((step,), (), settings.characters * RAW_CHARACTERS_PER_KEPT)(t) for t in texts]
        counts[f"changed_by_{number}_{step}"] = sum(a != b for a, b in zip(before, texts, strict=True))
    whole_texts = [Normaliser((), tuple(settings.redact), len(text))(text) for text in texts]
    counts["changed_by_redact"] = sum(a != b for a, b in zip(texts, whole_texts, strict=True))
    counts["cut_to_characters"] = sum(len(text) > settings.characters for text in whole_texts)
    inputs = [normaliser(text) for text in raws]
    part_missing = (rows.subject.fillna("") == "") | (rows.text.fillna("") == "")
    refuses_missing = settings.missing == "quarantine"
    reasons = [
        "no_text_after_normalisation" if not text else "missing_part" if missing and refuses_missing else None
        for text, missing in zip(inputs, part_missing, strict=True)
    ]
    return Prepared(raws, inputs, reasons, counts)


def serving_settings(settings: Prepare) -> dict[str, Any]:
    """The normaliser's settings."""
    steps = {"steps": settings.normalise, "redact": settings.redact, "characters": settings.characters}
    return {"normaliser": steps}


def fingerprint(model_input: str, settings: Prepare) -> set[bytes]:
    """All n-grams of ``shingle_words`` words of the lowercased text; a shorter text is one (Broder 1997)."""
    words, tokens = settings.near_duplicates.shingle_words, _WORD.findall(model_input.lower())
    return {" ".join(tokens[start : start + words]).encode() for start in range(max(1, len(tokens) - words + 1))}
