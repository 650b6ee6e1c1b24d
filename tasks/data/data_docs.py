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
    "rows": "rows",
    "missing_time_share": "share of rows without a time",
    "warning_share": "share of rows that were read with a warning",
    "duplicate_share": "share of rows whose content stood before",
    "id_missing": "the id is there",
    "id_not_unique": "the id is the only one of its kind",
    "label_missing": "the label is there",
    "label_unknown": "the label is a known one",
    "received_out_of_range": "time of arrival",
}
"""What each expectation and each row rule of all kinds measures; a kind has more."""


@dataclass(frozen=True)
class Findings:
    """The content of the page. It holds measures and counts, never an input."""

    results: Sequence[CheckResult]
    outcome: Mapping[str, Any]
    """Great Expectations' full result of the suite, as from ``to_json_dict``."""
    snapshot: int
    """Rows of the snapshot that was checked."""
    rules: Mapping[str, Mapping[str, Any]]
    """The arguments of each row rule's expectation, by the rule's name."""
    quarantined: Mapping[str, int]
    """Number of rows quarantined by each rule."""
    rows: Mapping[str, int]
    """Number of rows in the corpus, kept and quarantined."""
    meanings: Mapping[str, str]
    """What each of the kind's own expectations and rules measures."""


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
        expectations=[(item, meaning(item.name, findings.meanings), types.get(item.name, "-")) for item in findings.results],
        rules=[
            (name, meaning(name, findings.meanings), _rule_bounds(arguments), findings.quarantined.get(name, 0))
            for name, arguments in findings.rules.items()
        ],
        figure=figure,
        bound=lambda value: "" if value is None else figure(value),
    )


def figure(value: float | None) -> str:
    """A count with thousands separators, or a measure with six digits."""
    return f"{value:,.0f}" if value is not None and value == int(value) else format_value(value)


def meaning(name: str, of_kind: Mapping[str, str]) -> str:
    """What the expectation or the rule ``name`` measures."""
    if name.startswith(LABEL_SHARE):
        return f"share of rows with the label {name.removeprefix(LABEL_SHARE)}"
    return of_kind[name] if name in of_kind else MEANING[name]


def _rule_bounds(arguments: Mapping[str, Any]) -> str:
    """The bounds or the values that a row rule allows, in words; empty where its name says it all."""
    if "value_set" in arguments:
        return ", ".join(map(str, arguments["value_set"]))
    low, high = arguments.get("min_value"), arguments.get("max_value")
    return "" if low is None and high is None else allowed(low, high)


def _broken(results: Sequence[CheckResult], severity: str) -> list[str]:
    return [item.name for item in results if item.bound.severity == severity and not item.passed]
