"""Sequence classification, its data part: JSON Lines as model inputs (``tasks.kinds.DataPart``)."""

# ruff: noqa: I001 - its own packages are not where it imports them from, so ruff takes them for somebody else's

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import great_expectations.expectations as gxe
import pandas as pd

from service.kinds.sequence_classification.packing import first, packed
from tasks.data import settings
from tasks.data.cells import Unreadable
from tasks.data.check_result import Bound
from tasks.data.json_lines import read_json_lines
from tasks.data.proposal import Line, bound_line
from tasks.data.sources import Rejected, Row
from tasks.kinds import Prepared
from tasks.stage import Paths, StageError

CONTENT = ("sequence",)
"""The bytes of ``int64[n]``."""
OWN_INGEST = """ingest:
  {source: lines, path: data/table.jsonl, until: null, feedback: data/feedback.jsonl, feedback_weight: 3, label_mix_prior: 30}
"""
EMPTIED: Mapping[str, str] = {}
MEANINGS = {"length_mean": "numbers of a sequence, mean", "length_out_of_range": "numbers of a sequence"}


class Ingest(settings.Ingest):
    source: Literal["lines"]


class RowRules(settings.RowRules):
    length_max: int


class Validate(settings.Validate):
    row_rules: RowRules
    length_mean: Bound


class Prepare(settings.Prepare):
    length: int
    """So many numbers of a sequence are read."""


def read(settings: Ingest, paths: Paths) -> Iterator[Row | Rejected]:
    """The rows of the file; it has no times. Raises StageError."""
    path = Path(settings.path)
    try:
        for line, entry in read_json_lines(path):
            yield _row(entry, f"{path.name}:{line}", path.stem)
    except (OSError, ValueError) as error:
        raise StageError(f"ingest.path = {path}: cannot be read as jsonl: {error}") from error


def _row(entry: dict[str, object] | str, place: str, source: str) -> Row | Rejected:
    try:
        if isinstance(entry, str):
            raise Unreadable(entry)
        return Row(str(entry["id"]), None, source, str(entry["label"]), content_of(entry), ())
    except (Unreadable, KeyError) as error:
        return Rejected(place, source, str(error))


def content_of(entry: Mapping[str, object]) -> dict[str, bytes]:
    """The sequence: a list in the source, the numbers as a text in feedback, whose content is text."""
    sequence = entry.get("sequence")
    if not isinstance(sequence, list | str):
        raise Unreadable("sequence_missing_or_no_list")
    try:
        return {"sequence": packed(list(map(int, sequence.split() if isinstance(sequence, str) else sequence)))}
    except (TypeError, ValueError, ArithmeticError):
        raise Unreadable("sequence_not_of_numbers") from None


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    duplicate = corpus.duplicated("sequence").astype(int)
    return pd.DataFrame({"length": corpus.sequence.map(len) // 8, "duplicate": duplicate})


def row_rules(rules: RowRules) -> dict[str, gxe.Expectation]:
    between = gxe.ExpectColumnValuesToBeBetween(column="length", min_value=1, max_value=rules.length_max)
    return {"length_out_of_range": between}


def expectations(settings: Validate) -> dict[str, tuple[Bound, gxe.Expectation]]:
    bound = settings.length_mean
    mean = gxe.ExpectColumnMeanToBeBetween(column="length", min_value=bound.min, max_value=bound.max)
    return {"length_mean": (bound, mean)}


def usable(rows: pd.DataFrame) -> pd.Series:
    return rows.length > 0


def propose_row_rules(rows: pd.DataFrame, usable: pd.Series) -> Iterator[Line]:
    yield f"length_max: {2 * rows.length[usable].max()}", "twice the longest"


def propose_bounds(snapshot: pd.DataFrame) -> Iterator[Line]:
    yield bound_line("length_mean", low=1, high=2 * float(snapshot.length.mean())), "twice the mean"


def prepare_inputs(rows: pd.DataFrame, settings: Prepare) -> Prepared:
    inputs = [first(raw, settings.length) for raw in rows.sequence]
    cut = int((rows.sequence.map(len) > settings.length * 8).sum())
    return Prepared(list(rows.sequence), inputs, [None if given else "empty" for given in inputs], {"cut": cut})


def serving_settings(settings: Prepare) -> dict[str, Any]:
    return {"sequence": {"length": settings.length}}


def fingerprint(model_input: bytes, settings: Prepare) -> set[bytes]:
    """Each two neighbours."""
    return {model_input[start : start + 16] for start in range(0, max(8, len(model_input) - 8), 8)}
