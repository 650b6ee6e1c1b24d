"""The results of Great Expectations as a self-contained HTML page.

Its own Data Docs load styles, scripts, fonts and images from seven other hosts: they are unreadable offline, and online they
tell third parties who reads them. This page shows the same results, and how many rows were quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.data.check_result import SEVERITIES, CheckResult, allowed, format_value
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
"""What each rule requires of a row, by the name used in the quarantine."""


@dataclass(frozen=True)
class Findings:
    """The content of the page. It holds measures and counts, never a text."""

    results: Sequence[CheckResult]
    outcome: Mapping[str, Any]
    """Great Expectations' full result of the suite, as from ``to_json_dict``."""
    messages: int
    """Size of the snapshot that was checked."""
    rules: Mapping[str, Mapping[str, Any]]
    """The arguments of each row rule's expectation, by the rule's name."""
    quarantined: Mapping[str, int]
    """Number of rows quarantined by each rule."""
    rows: Mapping[str, int]
    """Number of rows in the corpus, kept and quarantined."""


def data_docs_page(findings: Findings) -> str:
    """The HTML page of ``findings``; all external text is escaped."""
    types = {
        result["expectation_config"]["meta"]["name"]: result["expectation_config"]["type"]
        for result in findings.outcome["results"]
    }
    broken = {severity: _broken(findings.results, severity) for severity in SEVERITIES}
    return render(
        PAGE,
        findings=findings,
        broken=broken,
        version=findings.outcome["meta"]["great_expectations_version"],
        expectations=[(item, meaning(item.name), types.get(item.name, "-")) for item in findings.results],
        rules=[
            (name, RULES[name], _rule_bounds(arguments), findings.quarantined.get(name, 0))
            for name, arguments in findings.rules.items()
        ],
        figure=figure,
        bound=lambda value: "" if value is None else figure(value),
    )


def figure(value: float | None) -> str:
    """A count with thousands separators, or a measure with six digits."""
    return f"{value:,.0f}" if value is not None and value == int(value) else format_value(value)


def meaning(name: str) -> str:
    """What the expectation ``name`` measures."""
    if name.startswith(LABEL_SHARE):
        return f"share of messages with the label {name.removeprefix(LABEL_SHARE)}"
    return MEANING[name]


def _rule_bounds(arguments: Mapping[str, Any]) -> str:
    """The bounds or the values that a row rule allows, in words; empty where its name says it all."""
    if "value_set" in arguments:
        return ", ".join(map(str, arguments["value_set"]))
    low, high = arguments.get("min_value"), arguments.get("max_value")
    return "" if low is None and high is None else allowed(low, high)


def _broken(results: Sequence[CheckResult], severity: str) -> list[str]:
    return [item.name for item in results if item.bound.severity == severity and not item.passed]
