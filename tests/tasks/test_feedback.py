"""tasks/data/feedback.py, and its way through the graph: one voice an input, and golden never moves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from service.journal import Journal
from tasks.data.feedback import COLUMNS, collect, main, write_rows
from tasks.data.grouping import split_of
from tasks.data.ingest import ingest
from tasks.data.prepare import prepare
from tasks.data.validate import validate
from tasks.files import read_json
from tasks.kinds.text_classification.data import CONTENT, Ingest, Prepare, Validate
from tasks.stage import Paths, StageError
from tests.conftest import made_table, of_kind
from tests.imports import MAIL

ROOT = Path(__file__).parents[2]
PARAMS = yaml.safe_load((MAIL / "params.yaml").read_text())


def said(identity: str, label: str, reviewer: str = "ann", text: str | None = None, minute: int = 0) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "time": f"2020-03-01T00:{minute:02}:00.000000+00:00",
        "id": identity,
        "label": label,
        "reviewer": reviewer,
        "subject": "",
        "text": text or f"text of {identity}",
        "received": "2020-02-01T00:00:00+00:00",
        "answered": None,
    }


def journalled(folder: Path, *records: dict[str, Any]) -> Path:
    journal = Journal(folder)
    for record in records:
        journal.append(record)
    journal.close()
    return folder


def test_labels_that_agree_are_one_row_and_those_that_do_not_are_quarantined_with_their_reviewers(tmp_path: Path) -> None:
    folder = journalled(
        tmp_path,
        said("a", "ham"), said("a", "ham", "bob"),
        said("b", "ham"), said("b", "spam", "bob"),
        said("c", "spam", text="same"), said("d", "ham", "eve", text="same"),
        said("e", "spam", text="twice"), said("f", "spam", text="twice"),
    )  # fmt: skip
    rows, quarantine = collect(folder, None, CONTENT)
    assert dict(zip(rows.id, rows.label, strict=True)) == {"a": "ham", "e": "spam"}
    assert quarantine.to_dict("records") == [
        {"id": name, "source": "feedback", "reason": f"contradictory_labels: {who}"}
        for name, who in (("b", "ann, bob"), ("c", "ann, eve"), ("d", "ann, eve"))
    ]


def test_only_what_was_said_before_a_time_counts_and_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    often = [said(f"m{n}", "ham", minute=n) for n in range(5)]
    folder = journalled(tmp_path / "a", *often, said("m0", "spam", "bob", minute=9))
    rows, quarantine = collect(folder, datetime(2020, 3, 1, 0, 3, tzinfo=UTC), CONTENT)
    assert list(rows.id) == ["m0", "m1", "m2"]
    assert quarantine.empty
    late, disputed = collect(folder, None, CONTENT)
    assert list(late.id) == ["m1", "m2", "m3", "m4"]
    assert list(disputed.id) == ["m0"]
    # The same said by several workers, in another order.
    again = journalled(tmp_path / "b", *(said(f"m{n}", "ham", minute=n) for n in (4, 2)))
    journalled(again, *(said(f"m{n}", "ham", minute=n) for n in (1, 3)))
    for number, frame in enumerate((late, collect(again, None, CONTENT)[0])):
        write_rows(frame, tmp_path / f"{number}.jsonl")
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_no_feedback_is_an_empty_file(tmp_path: Path) -> None:
    rows, quarantine = collect(tmp_path / "nothing", None, CONTENT)
    assert quarantine.empty
    write_rows(rows, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_table_becomes_feedback_once_however_often_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((MAIL / "params.yaml").read_text())
    table = [{"body": "win a prize", "class": "spam"}, {"body": "", "class": "ham"}, {"body": "no label", "class": None}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    command = ["import", str(tmp_path / "new.jsonl"), "--label", "class", "--text", "body", "--reviewer", "ann"]
    assert "1 labelled rows" in main(command, tmp_path)
    assert "2 rows were left out: no_content 1, no_label 1" in main(command, tmp_path)
    assert "1 rows" in main(["export", str(tmp_path / "out.jsonl"), "--before", "2999-01-01"], tmp_path)
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    name = "import:" + hashlib.sha256(b"win a prize").hexdigest()[:16]
    assert exported == [{"id": name, "label": "spam", "received": None, "subject": "", "text": "win a prize"}]


def test_rows_of_one_id_in_an_imported_table_are_told_apart_and_reasons_are_counted(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((MAIL / "params.yaml").read_text())
    table = [
        {"n": 7, "class": "spam", "body": "one"}, {"n": 7, "class": "ham", "body": "two \ud800"},
        {"n": 8, "class": "ham", "body": {}},
        {"n": 9, "class": "ham", "body": "same"}, {"n": 9, "class": "spam", "body": "same"},
    ]  # fmt: skip
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table) + "null\n")
    command = ["import", str(tmp_path / "new.jsonl"), "--label", "class", "--text", "body", "--id", "n"]
    for _ in range(2):
        said = main(command, tmp_path)
        assert "4 labelled rows" in said and "2 rows were left out: text_is_object 1, not_an_object 1" in said
    rows, quarantine = collect(tmp_path / "var/feedback", None, CONTENT)
    assert dict(zip(rows.id, rows.text, strict=True)) == {"import:7": "one", "import:7#2": "two \ufffd"}
    assert quarantine.id.tolist() == ["import:9", "import:9#2"]


def test_next_week_s_table_of_the_same_name_is_other_rows(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((MAIL / "params.yaml").read_text())
    for week, label in (("first", "spam"), ("second", "ham")):
        (tmp_path / week).mkdir()
        (tmp_path / week / "labels.csv").write_text(f"label,text\n{label},what came in the {week} week\n")
        main(["import", str(tmp_path / week / "labels.csv"), "--label", "label", "--text", "text"], tmp_path)
    rows, quarantine = collect(Paths(tmp_path).feedback, None, CONTENT)
    assert sorted(rows.label) == ["ham", "spam"]
    assert quarantine.empty


def test_a_reviewer_who_corrects_himself_is_believed_in_what_he_said_last(tmp_path: Path) -> None:
    corrected = [said("a", "ham", minute=1), said("a", "spam", minute=2)]
    folder = journalled(tmp_path, *corrected, said("b", "ham"), said("b", "spam", "bob"))
    rows, quarantine = collect(folder, None, CONTENT)
    assert dict(zip(rows.id, rows.label, strict=True)) == {"a": "spam"}
    assert list(quarantine.id) == ["b"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.csv", "--label", "class", "--text", "body"], "FILE = missing.csv: there is no such file"),
        (["new.csv", "--label", "kind", "--text", "body"], "--label = 'kind': new.csv has no such column; it has class, body"),
        (["new.csv", "--label", "body", "--text", "class"], "has the label 'hello', validate.labels are ham, spam"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_nothing_is_written(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "params.yaml").write_text((MAIL / "params.yaml").read_text())
    (tmp_path / "new.csv").write_text("class,body\nham,hello\n")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.data.feedback", "import", *arguments],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "var").exists()


# --- through the graph ----------------------------------------------------------------------------------------


def run_data_stages(root: Path, feedback: list[dict[str, Any] | str], mix_prior: float | None = None) -> pd.DataFrame:
    """The prepared frame of a made corpus, known before 2020-01-15, with these lines of feedback."""
    paths = Paths(of_kind(root))
    (root / "data").mkdir(exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in feedback]
    (root / "data/feedback.jsonl").write_text("".join(f"{line}\n" for line in lines))
    made_table(["ham", "spam"], 400).to_parquet(root / "data/table.parquet")
    columns = {"id": "id", "received": "received", "source": None, "label": "label", "subject": "subject", "text": "text"}
    changes: dict[str, Any] = {
        "source": "table",
        "path": str(root / "data/table.parquet"),
        "until": "2020-01-15",
        "columns": columns,
    }
    changes |= {"feedback": str(root / "data/feedback.jsonl"), "feedback_weight": 3.0, "label_mix_prior": mix_prior}
    ingest(Ingest.model_validate(PARAMS["ingest"] | changes), paths)
    rules = PARAMS["validate"]["row_rules"] | {"received_until": "2021-01-01"}
    loose = {"rows": {"min": 50, "max": None, "severity": "hard"}, "row_rules": rules}
    validate(Validate.model_validate(PARAMS["validate"] | loose), paths)
    prepare(Prepare.model_validate(PARAMS["prepare"] | {"redact": []}), paths)
    return pd.read_parquet(paths.prepared)


def line_of(identity: str, row: Any, **changes: Any) -> dict[str, Any]:
    line = {"id": identity, "received": "2020-01-16T00:00:00+00:00", "label": row.label, "subject": "", "text": row.raw}
    assert set(line) == {*COLUMNS, *CONTENT}
    return line | changes


def near(text: str) -> str:
    return " ".join([*text.split()[:-1], "changed"])


def reasons(root: Path) -> dict[str, str]:
    tables = [pd.read_csv(path) for path in (root / "data/quarantine").glob("*.csv")]
    return dict(pd.concat(tables)[["id", "reason"]].itertuples(index=False))


def test_without_feedback_every_weight_is_one_and_the_order_is_that_of_time(tmp_path: Path) -> None:
    rows = run_data_stages(tmp_path, [])
    assert (rows.weight == 1.0).all()
    assert rows.received.is_monotonic_increasing


def test_feedback_is_known_and_weighs_whenever_it_came(tmp_path: Path) -> None:
    before = run_data_stages(tmp_path, []).set_index("id")
    late = before[before.split == "future"].iloc[0]
    fresh: list[dict[str, Any] | str] = [
        line_of(f"f{n}", late, text=f"new words {n} " * 9, received=t) for n, t in enumerate((None, "2026-05-01"))
    ]
    rows = run_data_stages(tmp_path, [*fresh, line_of("copy", late)]).set_index("id")
    for name in ("f0", "f1", "copy"):
        assert rows.split[name] == split_of(name, {"golden": 0.1, "test": 0.15, "valid": 0.15})
        assert (rows.source[name], rows.weight[name]) == ("feedback", 3.0)
    assert reasons(tmp_path)[str(late.name)] == "duplicate", "it is no future any more: its label is known"
    assert (rows.weight[rows.source != "feedback"] == 1.0).all()


def test_the_source_s_labels_weigh_as_feedback_shows_that_they_occur_now(tmp_path: Path) -> None:
    before = run_data_stages(tmp_path, [], mix_prior=30.0)
    assert (before.weight == 1.0).all()
    row = before[before.label == "ham"].iloc[0]
    many: list[dict[str, Any] | str] = [line_of(f"f{n}", row, text=f"words of {n} " * 9) for n in range(300)]
    rows = run_data_stages(tmp_path, many, mix_prior=30.0)
    weights = rows[rows.source != "feedback"].groupby([rows.split == "future", "label"]).weight.first()
    assert weights[True].to_dict() == {"ham": 1.0, "spam": 1.0}, "the future is looked at as it is"
    source = rows[(rows.source != "feedback") & (rows.split != "future")]
    spam = source.weight[source.label == "spam"].sum() / source.weight.sum()
    assert spam == pytest.approx((source.label == "spam").mean() * 30 / 330, rel=0.05)
    assert set(rows.weight[rows.source == "feedback"]) == {3.0}


def test_golden_stays_golden_whatever_feedback_says_and_however_old_it_claims_to_be(tmp_path: Path) -> None:
    before = run_data_stages(tmp_path, []).set_index("id")
    golden, other = before[before.split == "golden"], {"ham": "spam", "spam": "ham"}
    feedback: list[dict[str, Any] | str] = []
    for number in range(len(golden)):
        row = golden.iloc[number]
        feedback.append(line_of(f"near-{number}", row, text=near(row.raw), received="2019-06-01T00:00:00+00:00"))
        feedback.append(line_of(f"against-{number}", row, label=other[row.label], received="2019-06-01T00:00:00+00:00"))
    rows = run_data_stages(tmp_path, feedback).set_index("id")
    known = before.split != "future"
    pd.testing.assert_series_equal(rows.split[before.index[known]], before.split[known])
    nearby = rows[rows.index.str.startswith("near-")]
    assert len(nearby) == len(golden) > 10
    assert set(nearby.split) == {"golden"}, "never train"
    found = reasons(tmp_path)
    assert {found[f"against-{number}"] for number in range(len(golden))} == {"same_input_other_label"}


def test_feedback_that_contradicts_itself_is_not_believed_and_broken_lines_are_named(tmp_path: Path) -> None:
    row = run_data_stages(tmp_path, []).iloc[0]
    text = "never seen before " * 5
    feedback: list[dict[str, Any] | str] = [
        line_of("yes", row, label="spam", text=text), line_of("no", row, label="ham", text=text + "  "),
        line_of("eggs", row, label="eggs", text=text + "but eggs"), line_of("none", row, label="  "),
        "{not json", "[1]", line_of("when", row, received="yesterday"), {"id": "half", "label": "ham"},
    ]  # fmt: skip
    rows = run_data_stages(tmp_path, feedback)
    assert not (rows.source == "feedback").any()
    found = reasons(tmp_path)
    assert {name: found[name] for name in ("yes", "no", "eggs", "none")} == {
        "yes": "same_input_other_label", "no": "same_input_other_label", "eggs": "label_unknown", "none": "no_label",
    }  # fmt: skip
    assert [found[name] for name in ("feedback.jsonl:5", "feedback.jsonl:6", "when", "feedback.jsonl:8")] == [
        "not_json", "not_an_object", "received_not_iso8601", "subject_missing_or_no_text",
    ]  # fmt: skip
    report = read_json(tmp_path / "reports/ingest.json")
    assert report["rows"] == report["corpus"] + sum(report["quarantined"].values()) == 408


def test_a_missing_feedback_file_is_said(tmp_path: Path) -> None:
    run_data_stages(tmp_path, [])
    changes = {"source": "table", "path": str(tmp_path / "data/table.parquet"), "feedback": "nowhere.jsonl"}
    with pytest.raises(StageError, match=r"ingest\.feedback = nowhere\.jsonl: No such file"):
        ingest(Ingest.model_validate(PARAMS["ingest"] | changes), Paths(of_kind(tmp_path)))
