"""tasks/data/validate.py: Great Expectations fails closed, names what broke, and never shows a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tasks.data.rules import measure
from tasks.data.validate import broken_rows, row_rules, validate
from tasks.files import read_json
from tasks.kinds import data_part
from tasks.kinds.text_classification.data import Validate
from tasks.stage import Paths, StageError
from tests.conftest import KIND, made_table, of_kind
from tests.imports import MAIL

PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())["validate"]
RULES = PARAMS["row_rules"] | {"received_from": "2019-01-01", "received_until": "2021-01-01"}


def settings_for(**changes: Any) -> Validate:
    base = PARAMS | {"row_rules": RULES, "rows": {"min": 50, "max": None, "severity": "hard"}}
    return Validate.model_validate(base | changes)


def made_corpus(rows: int = 120) -> pd.DataFrame:
    return made_table(["ham", "spam"], rows).assign(source="made", warnings="", known=True)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "data").mkdir()
    return Paths(of_kind(tmp_path))


def run_on(corpus: pd.DataFrame, paths: Paths, **changes: Any) -> dict[str, Any]:
    corpus.to_parquet(paths.corpus, index=False)
    validate(settings_for(**changes), paths)
    report: dict[str, Any] = read_json(paths.report("validate.json"))
    return report


def test_good_data_passes_whole(paths: Paths) -> None:
    corpus = made_corpus()
    report = run_on(corpus, paths)
    assert report["rows"] == {"corpus": 120, "kept": 120, "quarantined": 0}
    assert report["failed"] == {"hard": 0, "soft": 0}
    assert report["measured"]["rows"] == 120
    assert report["measured"]["label_share.ham"] == pytest.approx((corpus.label == "ham").mean())
    pd.testing.assert_frame_equal(pd.read_parquet(paths.validated), corpus, check_dtype=False)


def test_each_row_rule_sends_its_row_to_quarantine_by_name(paths: Paths) -> None:
    corpus = made_corpus()
    corpus.loc[1, "id"] = corpus.loc[0, "id"]
    corpus.loc[2, "label"] = "eggs"
    corpus.loc[3, "label"] = None
    corpus.loc[4, "received"] = pd.Timestamp("2028-01-01", tz="UTC")
    corpus.loc[5, ["text", "subject"]] = ""
    corpus.loc[6, "text"] = "\ufffd" * 400
    corpus.loc[7, "text"] = "x" * 500_001
    report = run_on(corpus, paths)
    quarantine = pd.read_csv(paths.quarantine / "validate.csv")
    assert quarantine.reason.tolist() == [
        "id_not_unique", "label_unknown", "label_missing", "received_out_of_range", "characters_out_of_range",
        "replacement_share_too_high", "characters_out_of_range",
    ]  # fmt: skip
    assert report["rows"]["kept"] + report["rows"]["quarantined"] == 120
    kept = pd.read_parquet(paths.validated)
    assert corpus.loc[0, "id"] in set(kept.id), "of two rows with one id the first stays"


@pytest.mark.parametrize(
    ("name", "spoil", "changes", "says"),
    [
        ("rows", lambda c: c.head(10), {}, "rows = 10, allowed is at least 50"),
        ("label share", lambda c: c[c.label == "ham"], {}, "label_share.spam = 0, allowed is at least 0.05"),
        ("times", lambda c: c.assign(received=pd.NaT), {}, "missing_time_share = 1, allowed is at most 0.05"),
        ("length", lambda c: c.assign(text="x"), {}, "characters_mean = "),
        ("replacement", lambda c: c.assign(text=c.text + "\ufffd" * 40), {}, "replacement_share = "),
        (
            "warnings",
            lambda c: c.assign(warnings="charset_wrong,time_from_date"),
            {"warning_share": {"min": None, "max": 0.5, "severity": "hard"}},
            "warning_share = 1, allowed is at most 0.5",
        ),
        (
            "duplicates",
            lambda c: c.assign(text="the same text in every row", subject="s").assign(text=lambda d: d.text * 8),
            {"duplicate_share": {"min": None, "max": 0.5, "severity": "hard"}},
            "duplicate_share = 0.99",
        ),
    ],
)
def test_each_hard_expectation_can_stop_the_pipeline(
    paths: Paths, name: str, spoil: Any, changes: dict[str, Any], says: str
) -> None:
    spoiled = spoil(made_corpus())
    spoiled["received"] = pd.to_datetime(spoiled.received, utc=True)
    with pytest.raises(StageError, match="not fit to learn from") as caught:
        run_on(spoiled, paths, **changes)
    assert says in str(caught.value)
    assert not paths.validated.exists()
    assert read_json(paths.report("validate.json"))["failed"]["hard"] >= 1


def test_a_soft_expectation_warns_and_lets_pass(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_on(made_corpus().assign(warnings="charset_wrong"), paths)
    assert report["failed"] == {"hard": 0, "soft": 1}
    assert "soft expectation broken: warning_share = 1" in capsys.readouterr().out


def test_an_empty_frame_fails(paths: Paths) -> None:
    with pytest.raises(StageError, match="empty"):
        run_on(made_corpus().head(0), paths)


def test_a_snapshot_whose_rows_are_all_quarantined_fails(paths: Paths) -> None:
    with pytest.raises(StageError, match="rows = 0"):
        run_on(made_corpus().assign(label="eggs"), paths)


def test_the_future_does_not_decide(paths: Paths) -> None:
    corpus = made_corpus(200)
    corpus.loc[100:, "known"] = False
    corpus.loc[100:, "warnings"] = "charset_wrong"
    assert run_on(corpus, paths)["failed"] == {"hard": 0, "soft": 0}


def test_no_text_stands_in_data_docs_reports_or_quarantine(paths: Paths) -> None:
    corpus = made_corpus()
    corpus["text"] = corpus.text + " PLANTEDMARKER"
    corpus.loc[3, "text"] = "PLANTEDMARKER" + "\ufffd" * 400
    run_on(corpus, paths)
    written = [path for folder in (paths.reports, paths.quarantine) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".html" for path in written)
    assert not [path for path in written if b"PLANTEDMARKER" in path.read_bytes()]


def test_measures_hold_no_text_column() -> None:
    assert not {"text", "subject", "raw"} & set(measure(made_corpus(), data_part(KIND)).columns)


def test_a_rule_that_cannot_be_checked_is_an_error() -> None:
    measured = measure(made_corpus(), data_part(KIND)).drop(columns="characters")
    with pytest.raises(StageError, match="characters_out_of_range could not be checked"):
        broken_rows(measured, row_rules(settings_for(), data_part(KIND)))
