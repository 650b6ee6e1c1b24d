"""Stage validate: data validation with Great Expectations; it fails closed.

There are three kinds of rule. A row that breaks a row rule goes to the quarantine under the rule's name. A broken hard
expectation about the remaining rows stops the pipeline with the value and its bound. A soft one warns. Great Expectations
gets measured columns only, so its results cannot show what a row holds.
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
from tasks.data.rules import measure
from tasks.data.settings import Validate
from tasks.files import atomic_write, write_json
from tasks.kinds import DataPart, data_part, kind_of, settings_of
from tasks.stage import Paths, StageError, as_time, run


def row_rules(settings: Validate, kind: DataPart) -> dict[str, gxe.Expectation]:
    """One column-map expectation per row rule, by the name used in the quarantine."""
    rules = settings.row_rules
    expectations_by_name: dict[str, gxe.Expectation] = {
        "id_missing": gxe.ExpectColumnValuesToNotBeNull(column="id"),
        "id_not_unique": gxe.ExpectColumnValuesToBeUnique(column="id"),
        "label_missing": gxe.ExpectColumnValuesToNotBeNull(column="label"),
        "label_unknown": gxe.ExpectColumnValuesToBeInSet(column="label", value_set=settings.labels),
        **kind.row_rules(rules),
    }
    first, last = as_time(rules.received_from), as_time(rules.received_until)
    if first or last:  # Great Expectations rejects a range without bounds
        expectations_by_name["received_out_of_range"] = gxe.ExpectColumnValuesToBeBetween(
            column="received", min_value=first, max_value=last
        )
    return expectations_by_name


def broken_rows(measured: pd.DataFrame, rules: dict[str, gxe.Expectation]) -> pd.Series:
    """The name of the first rule that each row breaks, by the row's index; without the rows that break none."""
    batch = _batch(measured, "rows")
    reasons = pd.Series(index=measured.index, dtype=object)
    for name, rule in rules.items():
        outcome = batch.validate(rule, result_format="COMPLETE")
        if "element_count" not in outcome.result:  # an expectation that raised has no count: fail closed
            raise StageError(f"the row rule {name} could not be checked: {outcome.exception_info}")
        broken = list(outcome.result.get("unexpected_index_list") or [])
        if rule.expectation_type == "expect_column_values_to_be_unique":
            broken = [row for row in broken if measured["id"].duplicated().loc[row]]  # the first one stays
        reasons.loc[broken] = reasons.loc[broken].fillna(name)
    return reasons.dropna()


def _batch(frame: pd.DataFrame, name: str) -> Any:
    """``frame`` as an in-memory batch of Great Expectations."""
    context = gx.get_context(mode="ephemeral")
    # No progress bar for each of a hundred metrics that take a millisecond.
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("corpus").add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def expectations(settings: Validate, kind: DataPart) -> dict[str, tuple[Bound, gxe.Expectation]]:
    """The suite for the rows that are left, by the parameter that sets each bound."""
    limits = {name: {"min_value": b.min, "max_value": b.max} for name, b in settings if isinstance(b, Bound)}
    suite: dict[str, tuple[Bound, gxe.Expectation]] = {
        "rows": (settings.rows, gxe.ExpectTableRowCountToBeBetween(**limits["rows"])),
        **kind.expectations(settings),
    }
    for name, column in (
        ("missing_time_share", "time_missing"),
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


def run_suite(measured: pd.DataFrame, settings: Validate, kind: DataPart) -> tuple[list[CheckResult], dict[str, Any]]:
    """Run the suite with Great Expectations: (the check results, its full result). What cannot be measured fails."""
    suite = expectations(settings, kind)
    frame = measured.assign(**{f"is_{label}": (measured.label == label).astype(int) for label in settings.labels})
    configured = [
        rule.copy(update={"meta": {"name": name, "severity": bound.severity}}) for name, (bound, rule) in suite.items()
    ]
    outcome = _batch(frame, "snapshot").validate(
        gx.ExpectationSuite(name="snapshot", expectations=configured), result_format="BASIC"
    )
    by_name: dict[str, CheckResult] = {}
    for result in outcome.results:
        name = (result.expectation_config.meta or {})["name"]
        value = result.result.get("observed_value")
        number = float(value) if value is not None and value == value else None
        by_name[name] = CheckResult(name, number, suite[name][0], bool(result.success) and number is not None)
    results = [by_name.get(name) or CheckResult(name, None, bound, False) for name, (bound, _) in suite.items()]
    return results, outcome.to_json_dict()


def report(findings: Findings, paths: Paths) -> None:
    """``validate.json``, and the HTML page with Great Expectations' own result beside it."""
    with atomic_write(paths.report("data_docs")) as temporary:
        temporary.mkdir()
        (temporary / "index.html").write_text(data_docs_page(findings), encoding="utf-8")
        write_json(temporary / "validation.json", findings.outcome)
    failed: list[str] = [item.bound.severity for item in findings.results if not item.passed]
    write_json(
        paths.report("validate.json"),
        {
            "rows": findings.rows,
            "quarantined": findings.quarantined,
            "measured": {item.name: item.value for item in findings.results},
            "failed": {severity: failed.count(severity) for severity in SEVERITIES},
        },
    )


def validate(settings: Validate, paths: Paths) -> None:
    """Check the corpus: quarantine broken rows, stop at a broken hard expectation, write Data Docs."""
    corpus, kind = read_corpus(paths), data_part(kind_of(paths))
    rules = row_rules(settings, kind)
    reasons = broken_rows(measure(corpus, kind), rules)
    quarantine = corpus.loc[reasons.index, ["id", "source"]].assign(reason=reasons)
    kept = corpus.drop(index=reasons.index)
    # Only the snapshot is checked: later rows must not decide whether earlier ones are fit for training.
    snapshot = measure(kept[kept.known], kind)
    results, outcome = run_suite(snapshot, settings, kind)
    rule_arguments = {name: rule.configuration.kwargs for name, rule in rules.items()}
    rows = {"corpus": len(corpus), "kept": len(kept), "quarantined": len(quarantine)}
    broken = {str(name): int(count) for name, count in quarantine.reason.value_counts().sort_index().items()}
    report(Findings(results, outcome, len(snapshot), rule_arguments, broken, rows, kind.MEANINGS), paths)
    with atomic_write(paths.quarantine / "validate.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    failed = [item for item in results if not item.passed]
    if snapshot.empty:  # then nothing else could be measured
        failed = [item for item in failed if item.name == "rows"] or failed
    for item in failed:
        if item.bound.severity == "soft":
            print(f"soft expectation broken: {item}")
    if hard := [str(item) for item in failed if item.bound.severity == "hard"]:
        raise StageError(unfit_message(hard, quarantine))
    with atomic_write(paths.validated) as temporary:
        kept.to_parquet(temporary, index=False)
    print(f"{len(kept)} of {len(corpus)} rows pass, {len(quarantine)} are quarantined")


def unfit_message(broken: list[str], quarantine: pd.DataFrame) -> str:
    """One line: the broken hard expectations, the quarantined rows, and how to fix it."""
    counts = [f"{reason} {count}" for reason, count in quarantine.reason.value_counts().items()]
    quarantined = f"; rows in quarantine: {', '.join(counts)}" if counts else ""
    fix = "params.yaml: validate; `python -m tasks.data.validate --propose` prints rules measured from this data"
    return f"the data is not fit to learn from: {'; '.join(broken)}{quarantined} ({fix})"


if __name__ == "__main__":
    run(validate, settings_of("validate"), {"--propose": print_proposal, "--write": write_proposal})
