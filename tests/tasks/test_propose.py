"""tasks/data/propose.py: the rules that are measured from a corpus hold for it, whatever is in it, and not for another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from ruamel.yaml import YAML

from tasks.data.ingest import ingest
from tasks.data.propose import as_yaml, propose, with_block
from tasks.data.validate import validate
from tasks.files import read_json
from tasks.kinds import data_part
from tasks.kinds.text_classification.data import Ingest, Validate
from tasks.stage import Paths, StageError, read_settings
from tests.conftest import KIND, made_table, of_kind
from tests.imports import MAIL, ROOT

ODD = [
    "no",
    "1",
    "1e5",
    "0o7",
    "null",
    "a: b",
    "#x",
    "- x",
    'naïve "q"',
    "two\nlines",
    "日本",
    "{a}",
    "~",
    " ",
    "\x7f",
    "x" * 200,
]


def made_corpus(rows: int = 120, labels: list[str] | None = None) -> pd.DataFrame:
    return made_table(labels or ["ham", "spam"], rows).assign(source="made", warnings="", known=True)


def times(*values: str | None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The corpus with these times, over and over."""

    def put(corpus: pd.DataFrame) -> pd.DataFrame:
        cells = pd.array([values[row % len(values)] for row in range(len(corpus))], dtype="datetime64[us]")
        return corpus.assign(received=pd.Series(cells, index=corpus.index).dt.tz_localize("UTC"))

    return put


def one_rare(corpus: pd.DataFrame) -> pd.DataFrame:
    corpus.loc[7, "label"] = "rare"
    return corpus


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "as made": made_corpus,
    "short texts": lambda: made_corpus().assign(text="ok", subject=""),
    "no times": lambda: times(None)(made_corpus()),
    "few times": lambda: times("2020-01-01", None, None)(made_corpus()),
    "the ends of the calendar": lambda: times("0001-01-01", "9999-12-31T23:59:59")(made_corpus()),
    "77 labels": lambda: made_corpus(770).assign(label=[f"intent {row % 77}" for row in range(770)]),
    "one label rare": lambda: one_rare(made_corpus(3000)),
    "odd labels": lambda: made_corpus(160).assign(label=[ODD[row % len(ODD)] for row in range(160)]),
    "one label": lambda: made_corpus(labels=["ham"]),
    "one row": lambda: made_corpus(1),
    "one text": lambda: made_corpus().assign(text="the same", subject=None),
    "warnings": lambda: made_corpus().assign(warnings="charset_wrong"),
    "broken characters": lambda: made_corpus().assign(text=lambda table: table.text + "\ufffd" * 60),
    "feedback": lambda: pd.concat([times("2050-01-01")(made_corpus(9)).assign(source="feedback", id=range(9)), made_corpus()]),
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "data").mkdir()
    return Paths(of_kind(tmp_path))


def rules_for(corpus: pd.DataFrame) -> dict[str, Any]:
    """The proposed block, which YAML 1.1 and 1.2 read alike, and in which each line says what was measured."""
    text = propose(corpus, data_part(KIND))
    assert all("# " in line.rpartition("'")[2].rpartition('"')[2] for line in text.splitlines()), text
    block: dict[str, Any] = yaml.safe_load(text)
    assert YAML(typ="safe").load(text) == block
    assert list(block) == ["validate"]
    return block


def judged(corpus: pd.DataFrame, block: dict[str, Any], paths: Paths) -> dict[str, Any]:
    corpus.to_parquet(paths.corpus, index=False)
    validate(read_settings(Validate, "validate", block), paths)
    report: dict[str, Any] = read_json(paths.report("validate.json"))
    return report


@pytest.mark.parametrize("name", TABLES)
def test_a_corpus_passes_the_rules_that_were_measured_on_it(paths: Paths, name: str) -> None:
    corpus = TABLES[name]()
    corpus["id"] = corpus.id.astype(str)
    corpus = corpus.reset_index(drop=True)
    block = rules_for(corpus)
    assert block["validate"]["labels"] == sorted(corpus.label.unique())
    report = judged(corpus, block, paths)
    assert report["rows"] == {"corpus": len(corpus), "kept": len(corpus), "quarantined": 0}
    assert report["failed"] == {"hard": 0, "soft": 0}


def test_a_table_with_times_since_1970_passes(paths: Paths) -> None:
    table = made_corpus()[["label", "text"]].assign(opened=[1_700_000_000_000 + 3_600_000 * row for row in range(120)])
    table.to_csv(paths.root / "tickets.csv", index=False)
    params = yaml.safe_load((MAIL / "params.yaml").read_text(encoding="utf-8"))["ingest"]
    columns = params["columns"] | {"received": "opened"}
    source = {"source": "table", "path": str(paths.root / "tickets.csv"), "until": None, "columns": columns}
    (paths.root / "feedback.jsonl").touch()
    ingest(Ingest.model_validate(params | source | {"feedback": str(paths.root / "feedback.jsonl")}), paths)
    corpus = pd.read_parquet(paths.corpus)
    block = rules_for(corpus)
    assert block["validate"]["row_rules"]["received_from"] == "2023-10-15"  # 30 days before 2023-11-14
    assert judged(corpus, block, paths)["failed"] == {"hard": 0, "soft": 0}


def test_rows_from_which_nothing_can_be_learned_are_left_to_the_quarantine(paths: Paths) -> None:
    corpus = made_corpus()
    corpus.loc[:39, ["text", "subject"]] = ""
    corpus.loc[40:59, "text"] = "\ufffd" * 400
    corpus.loc[60, ["known", "label"]] = [False, "later"]
    text = propose(corpus, data_part(KIND))
    assert "1 later rows have other labels: quarantined" in text
    assert "empty, so quarantined: 40 rows" in text
    assert "above it, so quarantined: 20 rows" in text
    assert "later" not in yaml.safe_load(text)["validate"]["labels"]
    report = judged(corpus, yaml.safe_load(text), paths)
    assert report["quarantined"] == {"characters_out_of_range": 40, "label_unknown": 1, "replacement_share_too_high": 20}
    assert report["failed"] == {"hard": 0, "soft": 0}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: c.head(50), "rows = 50"),
        (lambda c: c[(c.label == "ham") | (c.index < 20)], "label_share.spam"),
        (lambda c: times(None)(c), "missing_time_share = 1"),
        (lambda c: times("2031-01-01")(c), "received_out_of_range 120"),
        (lambda c: c.assign(text=c.text + c.text.str.repeat(2)), "characters_out_of_range 120"),
        (lambda c: c.assign(text=c.text.str[:30]), "characters_mean"),
        (lambda c: c.assign(text=c.text + "\ufffd" * 10), "replacement_share"),
        (lambda c: c.assign(label="eggs"), "label_unknown 120"),
    ],
)
def test_another_corpus_does_not_pass_them(paths: Paths, spoil: Callable[[pd.DataFrame], pd.DataFrame], says: str) -> None:
    block = rules_for(made_corpus())
    with pytest.raises(StageError, match="not fit to learn from") as caught:
        judged(spoil(made_corpus()), block, paths)
    assert says in str(caught.value)
    assert "`python -m tasks.data.validate --propose`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(StageError, match="none of the 120 known rows"):
        propose(made_corpus().assign(text="", subject=""), data_part(KIND))


@pytest.mark.parametrize("label", [*ODD, "ham", "Über_uns", "not-junk", "true", "ja nein"])
def test_a_label_is_the_same_text_for_every_version_of_yaml(label: str) -> None:
    assert yaml.safe_load(as_yaml(label)) == label
    assert YAML(typ="safe").load(as_yaml(label)) == label


def test_only_the_block_is_replaced() -> None:
    params = (MAIL / "params.yaml").read_text(encoding="utf-8")
    block = propose(made_corpus(), data_part(KIND))
    before, after = params.split("validate:\n")[0], "\n\nprepare:" + params.split("\n\nprepare:")[1]
    assert with_block(params, block) == before + block.rstrip("\n") + after
    again = with_block(with_block(params, block), block)
    assert again == with_block(params, block)
    assert with_block(params.replace("\n", "\r\n"), block) == again.replace("\n", "\r\n")
    assert with_block("a: 1\nvalidate:\n  x: 1", block) == "a: 1\n" + block


@pytest.mark.parametrize("params", ["a: 1\n", "{validate: {a: 1}}\n", "validate: {a: 1,\nb: 2}\n", '"validate": {a: 1}\n'])
def test_a_block_that_cannot_be_replaced_safely_is_left_alone(params: str) -> None:
    with pytest.raises(StageError, match="by hand"):
        with_block(params, propose(made_corpus(), data_part(KIND)))


def test_the_command_line(paths: Paths) -> None:
    params = paths.root / "params.yaml"
    own = f"kind: {KIND}\ningest: 1  # mine\n\n"
    params.write_text(f"{own}validate:\n  labels: [eggs]\n\nprepare: 2\n", encoding="utf-8")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tasks.data.validate", *options]
        return subprocess.run(
            command, cwd=paths.root, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )

    missing = run("--propose")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "validate: data/corpus.parquet is not there: `dvc repro ingest` makes it\n"
    made_corpus().to_parquet(paths.corpus, index=False)
    before = params.read_bytes()
    assert run("--propose").stdout == propose(made_corpus(), data_part(KIND))
    assert params.read_bytes() == before
    done = run("--propose", "--write")
    assert (done.returncode, done.stderr) == (0, "")
    assert params.read_text(encoding="utf-8") == own + propose(made_corpus(), data_part(KIND)) + "\nprepare: 2\n"
    assert run().stdout == "120 of 120 rows pass, 0 are quarantined\n"
