"""Stage validate: is this data fit to learn from? Great Expectations judges it, and fails closed.

Three kinds of rule. A row rule that a row breaks sends that row to the quarantine under the rule's name. A hard
expectation about the rows that are left stops the pipeline with its figure and its threshold. A soft one warns.
Great Expectations is given measured columns only, never a text, so no page of its results can show a message.
"""

from __future__ import annotations

from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from tasks.data.check_result import SEVERITIES, Bound, CheckResult
from tasks.data.data_docs import Findings, data_docs_page
from tasks.data.propose import print_proposal, read_corpus, write_proposal
from tasks.data.rules import Validate, measure
from tasks.stage import Paths, StageError, as_time, atomic_write, run, write_json


def row_rules(settings: Validate) -> dict[str, gxe.Expectation]:
    """One column-map expectation for each row rule, by the name that the quarantine shows."""
    rules = settings.row_rules
    named: dict[str, gxe.Expectation] = {
        "id_missing": gxe.ExpectColumnValuesToNotBeNull(column="id"),
        "id_not_unique": gxe.ExpectColumnValuesToBeUnique(column="id"),
        "label_missing": gxe.ExpectColumnValuesToNotBeNull(column="label"),
        "label_unknown": gxe.ExpectColumnValuesToBeInSet(column="label", value_set=settings.labels),
        "characters_out_of_range": gxe.ExpectColumnValuesToBeBetween(
            column="characters", min_value=rules.characters_min, max_value=rules.characters_max
        ),
        "replacement_share_too_high": gxe.ExpectColumnValuesToBeBetween(
            column="replacement_share", max_value=rules.replacement_share_max
        ),
    }
    first, last = as_time(rules.received_from), as_time(rules.received_until)
    if first or last:  # Great Expectations refuses a range that has no end
        named["received_out_of_range"] = gxe.ExpectColumnValuesToBeBetween(column="received", min_value=first, max_value=last)
    return named


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


def judge(measured: pd.DataFrame, settings: Validate) -> tuple[list[CheckResult], dict[str, Any]]:
    """Run the suite with Great Expectations: (the verdicts, its whole result). What cannot be measured fails."""
    suite = expectations(settings)
    frame = measured.assign(**{f"is_{label}": (measured.label == label).astype(int) for label in settings.labels})
    named = [rule.copy(update={"meta": {"name": name, "severity": bound.severity}}) for name, (bound, rule) in suite.items()]
    outcome = _batch(frame, "snapshot").validate(
        gx.ExpectationSuite(name="snapshot", expectations=named), result_format="BASIC"
    )
    found: dict[str, CheckResult] = {}
    for result in outcome.results:
        name = (result.expectation_config.meta or {})["name"]
        value = result.result.get("observed_value")
        number = float(value) if value is not None and value == value else None
        found[name] = CheckResult(name, number, suite[name][0], bool(result.success) and number is not None)
    judged = [found.get(name) or CheckResult(name, None, bound, False) for name, (bound, _) in suite.items()]
    return judged, outcome.to_json_dict()


def report(found: Findings, paths: Paths) -> None:
    """``validate.json``, and for people the page with Great Expectations' own result beside it."""
    with atomic_write(paths.report("data_docs")) as temporary:
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
    corpus = read_corpus(paths)
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
    with atomic_write(paths.quarantine / "validate.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    failed = [item for item in judged if not item.passed]
    if snapshot.empty:  # then nothing else could be measured
        failed = [item for item in failed if item.name == "rows"] or failed
    for item in failed:
        if item.bound.severity == "soft":
            print(f"soft expectation broken: {item}")
    if hard := [str(item) for item in failed if item.bound.severity == "hard"]:
        raise StageError(not_fit(hard, quarantine))
    with atomic_write(paths.validated) as temporary:
        kept.to_parquet(temporary, index=False)
    print(f"{len(kept)} of {len(corpus)} messages pass, {len(quarantine)} are quarantined")


def not_fit(broken: list[str], quarantine: pd.DataFrame) -> str:
    """One line: the hard expectations that are broken, what was quarantined before, and the mend."""
    counts = [f"{reason} {count}" for reason, count in quarantine.reason.value_counts().items()]
    before = f"; rows in quarantine: {', '.join(counts)}" if counts else ""
    mend = "params.yaml: validate; `python -m tasks.data.validate --propose` prints rules measured from this data"
    return f"the data is not fit to learn from: {'; '.join(broken)}{before} ({mend})"


if __name__ == "__main__":
    run(validate, Validate, {"--propose": print_proposal, "--write": write_proposal})
