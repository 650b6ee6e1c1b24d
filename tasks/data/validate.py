"""Stage validate: is this data fit to learn from? Great Expectations judges it, and fails closed.

Three kinds of rule. A row rule that a row breaks sends that row to the quarantine under the rule's name. A hard
expectation about the rows that are left stops the pipeline with its figure and its threshold. A soft one warns.
Great Expectations is given measured columns only, never a text, so no page of its results can show a message.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from tasks.data.data_docs import Findings, data_docs_page
from tasks.data.judged import SEVERITIES, Bound, Judged
from tasks.data.sources import FEEDBACK
from tasks.stage import Paths, Settings, StageError, as_time, run, whole, write_json


class RowRules(Settings):
    """What each single row must be; a row that is not goes to the quarantine."""

    received_from: datetime
    received_until: datetime
    characters_min: int
    characters_max: int
    replacement_share_max: float
    """Share of U+FFFD among a text's characters: what could not be decoded."""


class Validate(Settings):
    labels: list[str]
    row_rules: RowRules
    rows: Bound
    label_share: Bound
    """Of each label."""
    missing_time_share: Bound
    characters_mean: Bound
    replacement_share: Bound
    warning_share: Bound
    """Share of messages that were parsed with a warning."""
    duplicate_share: Bound
    """Share of messages whose subject and text stood before."""


def measure(corpus: pd.DataFrame) -> pd.DataFrame:
    """What the rules look at, one row a message and no text: id, label, received, characters, ..."""
    text = corpus.text.fillna("")
    length = text.str.len() + corpus.subject.fillna("").str.len()
    return pd.DataFrame(
        {
            "id": corpus.id,
            "label": corpus.label,
            # The time of feedback is the clock's or what a message claims; nothing is decided by it, and no rule asks for it.
            "received": corpus.received.where(corpus.source != FEEDBACK),
            "characters": length,
            "replacement_share": text.str.count("\ufffd") / length.clip(lower=1),
            "warned": corpus.warnings.str.replace(r"time_from_\w+,?", "", regex=True).ne("").astype(int),
            "duplicate": corpus.duplicated(["subject", "text"]).astype(int),
            "time_missing": corpus.received.isna().astype(int),
        }
    )


def row_rules(settings: Validate) -> dict[str, gxe.Expectation]:
    """One column-map expectation for each row rule, by the name that the quarantine shows."""
    rules = settings.row_rules
    return {
        "id_missing": gxe.ExpectColumnValuesToNotBeNull(column="id"),
        "id_not_unique": gxe.ExpectColumnValuesToBeUnique(column="id"),
        "label_missing": gxe.ExpectColumnValuesToNotBeNull(column="label"),
        "label_unknown": gxe.ExpectColumnValuesToBeInSet(column="label", value_set=settings.labels),
        "received_out_of_range": gxe.ExpectColumnValuesToBeBetween(
            column="received", min_value=as_time(rules.received_from), max_value=as_time(rules.received_until)
        ),
        "characters_out_of_range": gxe.ExpectColumnValuesToBeBetween(
            column="characters", min_value=rules.characters_min, max_value=rules.characters_max
        ),
        "replacement_share_too_high": gxe.ExpectColumnValuesToBeBetween(
            column="replacement_share", max_value=rules.replacement_share_max
        ),
    }


def broken_rows(measured: pd.DataFrame, rules: dict[str, gxe.Expectation]) -> pd.Series:
    """The name of the first rule that each row breaks, by the row's position; rows that break none are not in it."""
    batch = _batch(measured, "rows")
    reasons = pd.Series(index=measured.index, dtype=object)
    for name, rule in rules.items():
        outcome = batch.validate(rule, result_format="COMPLETE")
        if "element_count" not in outcome.result:  # an expectation that raised has counted nothing: fail closed
            raise StageError(f"the row rule {name} could not be checked: {outcome.exception_info}")
        broken = list(outcome.result.get("unexpected_index_list") or [])
        if rule.expectation_type == "expect_column_values_to_be_unique":
            broken = [row for row in broken if measured["id"].duplicated().loc[row]]  # the first one stays
        reasons.loc[broken] = reasons.loc[broken].fillna(name)
    return reasons.dropna()


def _batch(frame: pd.DataFrame, name: str) -> Any:
    """``frame`` as Great Expectations takes it, in memory."""
    context = gx.get_context(mode="ephemeral")
    # No progress bar for each of a hundred metrics that take a millisecond.
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("corpus").add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def expectations(settings: Validate) -> dict[str, tuple[Bound, gxe.Expectation]]:
    """The suite over the rows that are left, by the parameter that sets each bound."""
    limits = {name: {"min_value": b.min, "max_value": b.max} for name, b in settings if isinstance(b, Bound)}
    suite: dict[str, tuple[Bound, gxe.Expectation]] = {
        "rows": (settings.rows, gxe.ExpectTableRowCountToBeBetween(**limits["rows"])),
        "characters_mean": (
            settings.characters_mean,
            gxe.ExpectColumnMeanToBeBetween(column="characters", **limits["characters_mean"]),
        ),
    }
    for name, column in (
        ("missing_time_share", "time_missing"),
        ("replacement_share", "replacement_share"),
        ("warning_share", "warned"),
        ("duplicate_share", "duplicate"),
    ):
        suite[name] = getattr(settings, name), gxe.ExpectColumnMeanToBeBetween(column=column, **limits[name])
    for label in settings.labels:
        suite[f"label_share.{label}"] = (
            settings.label_share,
            gxe.ExpectColumnMeanToBeBetween(column=f"is_{label}", **limits["label_share"]),
        )
    return suite


def judge(measured: pd.DataFrame, settings: Validate) -> tuple[list[Judged], dict[str, Any]]:
    """Run the suite with Great Expectations: (the verdicts, its whole result). What cannot be measured fails."""
    suite = expectations(settings)
    frame = measured.assign(**{f"is_{label}": (measured.label == label).astype(int) for label in settings.labels})
    named = [rule.copy(update={"meta": {"name": name, "severity": bound.severity}}) for name, (bound, rule) in suite.items()]
    outcome = _batch(frame, "snapshot").validate(
        gx.ExpectationSuite(name="snapshot", expectations=named), result_format="BASIC"
    )
    found: dict[str, Judged] = {}
    for result in outcome.results:
        name = (result.expectation_config.meta or {})["name"]
        value = result.result.get("observed_value")
        number = float(value) if value is not None and value == value else None
        found[name] = Judged(name, number, suite[name][0], bool(result.success) and number is not None)
    judged = [found.get(name) or Judged(name, None, bound, False) for name, (bound, _) in suite.items()]
    return judged, outcome.to_json_dict()


def report(found: Findings, paths: Paths) -> None:
    """``validate.json``, and for people the page with Great Expectations' own result beside it."""
    with whole(paths.report("data_docs")) as temporary:
        temporary.mkdir()
        (temporary / "index.html").write_text(data_docs_page(found), encoding="utf-8")
        write_json(temporary / "validation.json", found.outcome)
    failed: list[str] = [item.bound.severity for item in found.judged if not item.passed]
    write_json(
        paths.report("validate.json"),
        {
            "rows": found.rows,
            "quarantined": found.quarantined,
            "measured": {item.name: item.value for item in found.judged},
            "failed": {severity: failed.count(severity) for severity in SEVERITIES},
        },
    )


def validate(settings: Validate, paths: Paths) -> None:
    """Check the corpus: broken rows to the quarantine, a broken hard expectation stops here, Data Docs for people."""
    corpus = pd.read_parquet(paths.corpus)
    if corpus.empty:
        raise StageError(f"{paths.corpus.name} is empty: there is nothing to validate")
    rules = row_rules(settings)
    reasons = broken_rows(measure(corpus), rules)
    quarantine = corpus.loc[reasons.index, ["id", "source"]].assign(reason=reasons)
    kept = corpus.drop(index=reasons.index)
    # The snapshot alone is judged: what arrives later must not decide whether the past is fit to learn from.
    snapshot = measure(kept[kept.known])
    judged, outcome = judge(snapshot, settings)
    asked = {name: rule.configuration.kwargs for name, rule in rules.items()}
    rows = {"corpus": len(corpus), "kept": len(kept), "quarantined": len(quarantine)}
    broken = {str(name): int(count) for name, count in quarantine.reason.value_counts().sort_index().items()}
    report(Findings(judged, outcome, len(snapshot), asked, broken, rows), paths)
    with whole(paths.quarantine / "validate.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    conclude([item for item in judged if not item.passed])
    with whole(paths.validated) as temporary:
        kept.to_parquet(temporary, index=False)
    print(f"{len(kept)} of {len(corpus)} messages pass, {len(quarantine)} are quarantined")


def conclude(failed: list[Judged]) -> None:
    """Tell what is broken. Raises StageError where one of it is hard."""
    for item in failed:
        print(f"{item.bound.severity} expectation broken: {item}")
    if hard := [str(item) for item in failed if item.bound.severity == "hard"]:
        raise StageError(f"the data is not fit to learn from: {'; '.join(hard)} (params.yaml: validate)")


if __name__ == "__main__":
    run(validate, Validate)
