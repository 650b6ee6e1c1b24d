"""What Great Expectations found, as a page that opens anywhere.

Its own Data Docs load styles, scripts, fonts and pictures from seven other hosts: without a network they are a list without
marks, and with one they tell strangers who reads. This page shows the same results, and what happened to the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.data.check_result import SEVERITIES, CheckResult, allowed, shown
from tasks.page import render

PAGE = Path(__file__).with_name("data_docs.html.j2")
LABEL_SHARE = "label_share."
MEANING = {
    "rows": "messages",
    "missing_time_share": "share of messages without a time",
    "characters_mean": "characters of subject and text, mean",
    "replacement_share": "share of characters that could not be decoded, mean",
    "warning_share": "share of messages that were parsed with a warning",
    "duplicate_share": "share of messages whose subject and text stood before",
}
"""What each expectation of the snapshot measures, by the parameter that bounds it."""
RULES = {
    "id_missing": "the id is there",
    "id_not_unique": "the id is the only one of its kind",
    "label_missing": "the label is there",
    "label_unknown": "the label is a known one",
    "received_out_of_range": "time of arrival",
    "characters_out_of_range": "characters of subject and text",
    "replacement_share_too_high": "share of characters that could not be decoded",
}
"""What each rule asks of a row, by the name that the quarantine shows."""


@dataclass(frozen=True)
class Findings:
    """All that the page shows. It holds measures and counts, never a text."""

    judged: Sequence[CheckResult]
    outcome: Mapping[str, Any]
    """Great Expectations' whole result of the suite, as its ``to_json_dict`` gives it."""
    messages: int
    """Of the snapshot, which was judged."""
    rules: Mapping[str, Mapping[str, Any]]
    """The arguments of each row rule's expectation, by the rule's name."""
    quarantined: Mapping[str, int]
    """Rows under each rule that a row broke."""
    rows: Mapping[str, int]
    """Of the corpus, kept and quarantined."""


def data_docs_page(found: Findings) -> str:
    """The page of ``found`` as HTML; everything that came from outside is escaped."""
    types = {
        result["expectation_config"]["meta"]["name"]: result["expectation_config"]["type"]
        for result in found.outcome["results"]
    }
    broken = {severity: _broken(found.judged, severity) for severity in SEVERITIES}
    return render(
        PAGE,
        found=found,
        broken=broken,
        version=found.outcome["meta"]["great_expectations_version"],
        expectations=[(item, meaning(item.name), types.get(item.name, "-")) for item in found.judged],
        rules=[(name, RULES[name], _asked(given), found.quarantined.get(name, 0)) for name, given in found.rules.items()],
        figure=figure,
        bound=lambda value: "" if value is None else figure(value),
    )


def figure(value: float | None) -> str:
    """A count with its thousands parted, or a measure with six digits."""
    return f"{value:,.0f}" if value is not None and value == int(value) else shown(value)


def meaning(name: str) -> str:
    """What the expectation ``name`` measures."""
    if name.startswith(LABEL_SHARE):
        return f"share of messages with the label {name.removeprefix(LABEL_SHARE)}"
    return MEANING[name]


def _asked(given: Mapping[str, Any]) -> str:
    """The bounds or the values that a row rule allows, in words; nothing where its name says it all."""
    if "value_set" in given:
        return ", ".join(map(str, given["value_set"]))
    low, high = given.get("min_value"), given.get("max_value")
    return "" if low is None and high is None else allowed(low, high)


def _broken(judged: Sequence[CheckResult], severity: str) -> list[str]:
    return [item.name for item in judged if item.bound.severity == severity and not item.passed]
