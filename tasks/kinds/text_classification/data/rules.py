"""What is measured of each text, the rules about it, and the rules that are proposed from it."""

from __future__ import annotations

from collections.abc import Iterator

import great_expectations.expectations as gxe
import pandas as pd

from tasks.data.check_result import Bound
from tasks.data.proposal import Line, bound_line, round_down, round_up, upper_bound_line
from tasks.kinds.text_classification.data.settings import RowRules, Validate

CHARACTERS_MIN, REPLACEMENT_SHARE_MAX = 1, 0.3
"""Bounds for rows that are no use in training: empty, or not decodable."""


MEANINGS = {
    "characters_mean": "characters of subject and text, mean",
    "replacement_share": "share of characters that could not be decoded, mean",
    "characters_out_of_range": "characters of subject and text",
    "replacement_share_too_high": "share of characters that could not be decoded",
}
"""What each expectation and each rule measures, for the page about the data."""


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    """One row per text and no text: ``characters`` of subject and text, ``replacement_share``, ``duplicate``."""
    text = corpus.text.fillna("")
    length = text.str.len() + corpus.subject.fillna("").str.len()
    return pd.DataFrame(
        {
            "characters": length,
            "replacement_share": text.str.count("\ufffd") / length.clip(lower=1),
            "duplicate": corpus.duplicated(["subject", "text"]).astype(int),
        }
    )


def row_rules(rules: RowRules) -> dict[str, gxe.Expectation]:
    """The expectation of each rule by the name used in the quarantine."""
    return {
        "characters_out_of_range": gxe.ExpectColumnValuesToBeBetween(
            column="characters", min_value=rules.characters_min, max_value=rules.characters_max
        ),
        "replacement_share_too_high": gxe.ExpectColumnValuesToBeBetween(
            column="replacement_share", max_value=rules.replacement_share_max
        ),
    }


def expectations(settings: Validate) -> dict[str, tuple[Bound, gxe.Expectation]]:
    """Bound and expectation by the parameter that sets it."""
    return {
        name: (bound, gxe.ExpectColumnMeanToBeBetween(column=column, min_value=bound.min, max_value=bound.max))
        for name, column, bound in (
            ("characters_mean", "characters", settings.characters_mean),
            ("replacement_share", "replacement_share", settings.replacement_share),
        )
    }


def usable(rows: pd.DataFrame) -> pd.Series:
    """Which measured rows are neither empty nor impossible to decode."""
    return (rows.characters >= CHARACTERS_MIN) & (rows.replacement_share <= REPLACEMENT_SHARE_MAX)


def propose_row_rules(rows: pd.DataFrame, usable: pd.Series) -> Iterator[Line]:
    """Bounds somewhat wider than the range of the ``usable`` rows."""
    characters = rows.characters[usable]
    empty, undecodable = (
        int((rows.characters < CHARACTERS_MIN).sum()),
        int((rows.replacement_share > REPLACEMENT_SHARE_MAX).sum()),
    )
    yield f"characters_min: {CHARACTERS_MIN}", f"shortest {characters.min():,}; empty, so quarantined: {empty:,} rows"
    longest = int(round_up(2 * int(characters.max())))
    yield f"characters_max: {longest}", f"longest {characters.max():,}, median {characters.median():,.0f}"
    highest = rows.replacement_share[usable].max()
    yield (
        f"replacement_share_max: {REPLACEMENT_SHARE_MAX}",
        f"highest {highest:.3g}; above it, so quarantined: {undecodable:,} rows",
    )


def propose_bounds(snapshot: pd.DataFrame) -> Iterator[Line]:
    """Half the measured mean as a lower bound, twice it as an upper bound."""
    mean = float(snapshot.characters.mean())
    yield bound_line("characters_mean", low=round_down(mean / 2), high=round_up(2 * mean)), f"{mean:,.6g}"
    yield upper_bound_line("replacement_share", snapshot.replacement_share, 0.01)
