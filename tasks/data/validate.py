"""Stage validate: is this data fit to learn from? Great Expectations judges it, and fails closed.

Three kinds of rule. A row rule that a row breaks sends that row to the quarantine under the rule's name. A hard
expectation about the rows that are left stops the pipeline with its figure and its threshold. A soft one warns.
Great Expectations is given measured columns only, never a text, so its Data Docs cannot show a message.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from tasks.data.propose import print_proposal, read_corpus, write_proposal
from tasks.data.rules import Bound, Validate, measure
from tasks.stage import Paths, StageError, as_time, run, whole, write_json


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
    context = _quiet(gx.get_context(mode="ephemeral"))
    batch = (
        context.data_sources.add_pandas("corpus")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": measured})
    )
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


def _quiet(context: Any) -> Any:
    """No progress bar for each of a hundred metrics that take a millisecond."""
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context


@dataclass(frozen=True)
class Judged:
    """One expectation after it ran. ``value`` is None where there was nothing to measure, which fails."""

    name: str
    value: float | None
    bound: Bound
    passed: bool

    def __str__(self) -> str:
        low, high = self.bound.min, self.bound.max
        allowed = " and ".join(
            part
            for part in (f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else "")
            if part
        )
        return f"{self.name} = {'nothing' if self.value is None else format(self.value, '.6g')}, allowed is {allowed}"


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


def judge(measured: pd.DataFrame, settings: Validate, docs: Path) -> list[Judged]:
    """Run the suite with Great Expectations and write its Data Docs to ``docs``. What cannot be measured fails."""
    suite = expectations(settings)
    frame = measured.assign(**{f"is_{label}": (measured.label == label).astype(int) for label in settings.labels})
    with tempfile.TemporaryDirectory() as folder:
        context = _quiet(gx.get_context(mode="file", project_root_dir=folder))
        batch = (
            context.data_sources.add_pandas("corpus")
            .add_dataframe_asset("snapshot")
            .add_batch_definition_whole_dataframe("all")
        )
        named = [
            rule.copy(update={"meta": {"name": name, "severity": bound.severity}}) for name, (bound, rule) in suite.items()
        ]
        checks = context.suites.add(gx.ExpectationSuite(name="snapshot", expectations=named))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name="snapshot", data=batch, suite=checks))
        outcome = definition.run(batch_parameters={"dataframe": frame}, result_format="BASIC")
        judged = []
        for result in outcome.results:
            name = (result.expectation_config.meta or {})["name"]
            value = result.result.get("observed_value")
            number = float(value) if value is not None and value == value else None
            judged.append(Judged(name, number, suite[name][0], bool(result.success) and number is not None))
        _write_docs(context, definition, frame, Path(folder), docs)
    missing = suite.keys() - {item.name for item in judged}
    return judged + [Judged(name, None, suite[name][0], False) for name in sorted(missing)]


def _write_docs(context: Any, definition: Any, frame: pd.DataFrame, folder: Path, docs: Path) -> None:
    """Data Docs, after the verdict: an error here must not turn into one about the data."""
    checkpoint = gx.Checkpoint(
        name="snapshot",
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        result_format="BASIC",
    )
    context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    with whole(docs) as temporary:
        shutil.copytree(folder / "gx/uncommitted/data_docs/local_site", temporary)


def validate(settings: Validate, paths: Paths) -> None:
    """Check the corpus: broken rows to the quarantine, a broken hard expectation stops here, Data Docs for people."""
    corpus = read_corpus(paths)
    measured = measure(corpus)
    reasons = broken_rows(measured, row_rules(settings))
    quarantine = corpus.loc[reasons.index, ["id", "source"]].assign(reason=reasons)
    kept = corpus.drop(index=reasons.index)
    # The snapshot alone is judged: what arrives later must not decide whether the past is fit to learn from.
    snapshot = measure(kept[kept.known])
    judged = judge(snapshot, settings, paths.report("data_docs"))
    failed = [item for item in judged if not item.passed]
    with whole(paths.quarantine / "validate.csv") as temporary:
        quarantine.to_csv(temporary, index=False)
    write_json(
        paths.report("validate.json"),
        {
            "rows": {"corpus": len(corpus), "kept": len(kept), "quarantined": len(quarantine)},
            "quarantined": quarantine.reason.value_counts().sort_index().to_dict(),
            "measured": {item.name: item.value for item in judged},
            "failed": {severity: sum(i.bound.severity == severity for i in failed) for severity in ("hard", "soft")},
        },
    )
    if snapshot.empty:  # then nothing else could be measured
        failed = [item for item in failed if item.name == "rows"] or failed
    for item in failed:
        if item.bound.severity == "soft":
            print(f"soft expectation broken: {item}")
    if hard := [str(item) for item in failed if item.bound.severity == "hard"]:
        raise StageError(not_fit(hard, quarantine))
    with whole(paths.validated) as temporary:
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
