"""tasks/data/tables.py and its readers: a table of any format keeps its digits, its lines and its count."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.ingest import account, collect
from tasks.data.sources import LABEL_WITHOUT_FILE, Rejected, Row
from tasks.data.tables import labelled, read_feedback, read_labels, read_table
from tasks.kinds.text_classification.data import CONTENT, content_of
from tasks.stage import StageError
from tests.zipped import zipped

COLUMNS = {"id": None, "received": None, "source": None, "label": "label", "subject": None, "text": "text"}
NOON = datetime(2002, 8, 22, 15, tzinfo=UTC)


def read(path: Path, content: bytes | str | None = None, **columns: str) -> list[Row | Rejected]:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(path, COLUMNS | columns, CONTENT))


def kept(rows: list[Row | Rejected]) -> list[tuple[str | None, str]]:
    return [(row.label, row.content["text"]) for row in rows if isinstance(row, Row)]


def refused(rows: list[Row | Rejected]) -> dict[str, str]:
    return {row.id: row.reason for row in rows if isinstance(row, Rejected)}


TWO = [("ham", "one"), ("spam", "two")]


# Parquet: types


def parquet(folder: Path, **columns: Any) -> Path:
    path = folder / "data.parquet"
    arrays = {name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in columns.items()}
    pq.write_table(pa.table(arrays), path)
    return path


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([3, None, 2**53 + 1], pa.int64()), ["3", None, "9007199254740993"]),
        (pa.array([2**64 - 1, None, 0], pa.uint64()), ["18446744073709551615", None, "0"]),
        (pa.array([3.0, float("nan"), 0.5]), ["3", None, "0.5"]),
        (pa.array([2.0**60, -0.0, 1e300]), ["1152921504606847000", "0", "1e+300"]),
        (pa.array([0.1, None, 16777216], pa.float32()), ["0.1", None, "16777216"]),
        (pa.array([Decimal("3.00"), None, Decimal("2.50")], pa.decimal128(38, 2)), ["3", None, "2.50"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
        (pa.array(["a", None, "  "]), ["a", None, None]),
        (pa.array(["007", None, "nan"], pa.large_string()), ["007", None, "nan"]),
        (pa.array(["a", None, "b\0c"], pa.string_view()), ["a", None, "b\0c"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([7, None, 7]).dictionary_encode(), ["7", None, "7"]),
        (pa.array([b"a", None, "grün".encode()]), ["a", None, "grün"]),
        (pa.array([b"ab", None, b"cd"], pa.binary(2)), ["ab", None, "cd"]),
        (pa.nulls(3), [None, None, None]),
        (pa.array([date(2002, 8, 22), None, date(1, 1, 1)]), ["2002-08-22", None, "0001-01-01"]),
        (pa.array([NOON, None, NOON], pa.timestamp("ns", "Asia/Tokyo")), ["2002-08-22T15:00:00+00:00", None] * 2),
        (pa.array([b"\x01" * 16, None, b"\x02" * 16], pa.uuid()), [f"{'01' * 4}-0101-0101-0101-{'01' * 6}", None]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_value_of_any_scalar_type_is_its_digits_or_its_text(
    tmp_path: Path, values: pa.Array, texts: list[str | None]
) -> None:
    path = parquet(tmp_path, label=values, name=values, text=["one", "two", "three"])
    rows = read(path, id="name", source="name")
    assert [row.label for row in rows if isinstance(row, Row)][: len(texts)] == texts[:3]
    named = [text or f"data#{number}" for number, text in enumerate(texts[:2])]
    assert [row.id for row in rows][:2] == named
    assert rows[1].source == (texts[1] or "data")


def test_nullable_columns_as_pandas_writes_them(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2, None], "label": ["ham", pd.NA, "spam"], "text": ["one", "two", pd.NA]})
    frame.astype({"id": "Int64", "label": "string", "text": "string"}).to_parquet(tmp_path / "a.parquet")
    frame.astype({"label": "category"}).set_index("id").to_parquet(tmp_path / "b.parquet")
    for name in "ab":
        rows = read(tmp_path / f"{name}.parquet", id="id")
        assert kept(rows) == [("ham", "one"), (None, "two"), ("spam", "")]
        assert [row.id for row in rows] == ["1", "2", f"{name}#2"]


def test_bytes_that_are_not_utf8_are_quarantined_also_where_the_column_says_that_they_are_text(tmp_path: Path) -> None:
    lying = pa.array([b"\xff\xfe", b"two"]).view(pa.string())
    for text in (
        pa.array([b"\xff\xfe", b"two"]),
        lying,
        lying.dictionary_encode(),
        pa.array([b"\xffab", b"two"], pa.binary_view()),
    ):
        path = parquet(tmp_path, label=["ham", "spam"], text=text, id=["a", "b"])
        assert refused(read(path, id="id")) == {"a": "text_not_utf8"}
        assert refused(read(path)) == {"data#0": "text_not_utf8"}


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([["a"], ["b"]]), "list<element: string>"),
        (pa.array([{"a": 1}, {"a": 2}]), "struct<a: int64>"),
        (pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())), "map<string, int64"),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), "fixed_size_list"),
        (pa.array([1, 2], pa.duration("s")), "duration"),
    ],
    ids=str,
)
def test_a_nested_column_is_refused_by_its_name_and_type_where_it_is_mapped(
    tmp_path: Path, column: pa.Array, kind: str
) -> None:
    path = parquet(tmp_path, label=["ham", "spam"], body=column, text=["one", "two"])
    assert kept(read(path)) == TWO
    with pytest.raises(StageError, match=f"the column 'body' is {kind}"):
        read(path, text="body")


def test_a_folder_of_parts_is_one_table_and_what_stands_in_their_paths_is_text(tmp_path: Path) -> None:
    root = tmp_path / "data.parquet"
    for label, text in (("007", ["one", "two"]), ("a%20b", ["three"])):
        (root / f"label={label}").mkdir(parents=True)
        pq.write_table(pa.table({"text": text}), root / f"label={label}/part-0.parquet")
    (root / "_SUCCESS").touch()
    (root / "_metadata.parquet").write_text("no part")
    rows = read(root)
    assert kept(rows) == [("007", "one"), ("007", "two"), ("a b", "three")]
    assert [row.id for row in rows] == ["data#0", "data#1", "data#2"]
    with pytest.raises(StageError, match=r"holds no \*\.parquet file"):
        (tmp_path / "empty.parquet").mkdir()
        read(tmp_path / "empty.parquet")


def test_parts_may_differ_in_what_columns_they_hold_and_in_their_types(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").mkdir()
    pq.write_table(pa.table({"label": [1, None], "text": ["a", "b"]}), tmp_path / "d.parquet/1.parquet")
    pq.write_table(pa.table({"label": ["x"], "other": [1]}), tmp_path / "d.parquet/2.parquet")
    pq.write_table(pa.table({"other": [1, 2]}), tmp_path / "d.parquet/3.parquet")
    assert kept(read(tmp_path / "d.parquet")) == [("1", "a"), (None, "b"), ("x", ""), (None, ""), (None, "")]


# Times


@pytest.mark.parametrize(
    ("value", "time"),
    [
        *((10**power * 1030028400, NOON) for power in (0, 3, 6, 9)),
        (1030028400.0, NOON),
        (1030028400.25, NOON.replace(microsecond=250_000)),
        (1030028400123456789, NOON.replace(microsecond=123_456)),
        (20020822, NOON.replace(hour=0)),
        ("2002-08-22T17:00:00+02:00", NOON),
        ("2002-08-22 15:00", NOON),
        ("2002/8/22 15:00:00Z", NOON),
        ("2002-08", datetime(2002, 8, 1, tzinfo=UTC)),
        ("2002-W34-4t15:00z", NOON),
        ("20020822T150000Z", NOON),
        (" 1030028400 ", NOON),
        ("2500-01-01", datetime(2500, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("", None),
        ("   ", None),
        (float("nan"), None),
        *((value, "received_out_of_range") for value in (0, -1, 2002, 10**10, 10**11, 10**19, 10**30, 1e300, "9" * 5000)),
        *((value, "received_out_of_range") for value in (20020822150000, 200208221500, "-1030028400", float("inf"))),
        ("9999-12-31T23:59:59-05:00", "received_out_of_range"),
        ("0001-01-01T00:00:00+05:00", "received_out_of_range"),
        *(
            (value, "received_not_iso8601")
            for value in ("now", "today", "yesterday", "1.03E+09", "22/08/2002", "2002-13-01", True)
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_times_of_any_unit_are_told_by_their_magnitude_and_what_is_no_time_is_quarantined(
    tmp_path: Path, value: Any, time: datetime | str | None
) -> None:
    plain = value if isinstance(value, str) else json.dumps(value)
    paths = {"csv": tmp_path / "t.csv", "jsonl": tmp_path / "t.jsonl"}
    if isinstance(value, str) or value == value:
        with paths["csv"].open("w", newline="") as file:
            csv.writer(file).writerows([["label", "text", "when"], ["ham", "one", plain], ["ham", "control", "2002-08-22"]])
    else:
        del paths["csv"]
    paths["jsonl"].write_text(json.dumps({"label": "ham", "text": "one", "when": value}))
    if not isinstance(value, int) or abs(value) < 2**63:
        paths["parquet"] = parquet(tmp_path, label=["ham"], text=["one"], when=[value])
    for kind, path in paths.items():
        row = read(path, received="when")[0]
        if kind == "csv" and plain in ("Infinity", "true", "1e+300"):
            assert isinstance(row, Rejected) and row.reason == "received_not_iso8601"
        elif isinstance(time, str):
            assert isinstance(row, Rejected) and row.reason == time, kind
        else:
            assert isinstance(row, Row) and row.received == time, kind
            assert row.warnings == (() if time else ("time_missing",))


def test_every_type_of_time_that_parquet_has(tmp_path: Path) -> None:
    arrays = [pa.array([NOON.replace(tzinfo=None), None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")]
    arrays += [pa.array([NOON, None], pa.timestamp(unit, zone)) for unit in ("s", "ns") for zone in ("UTC", "Asia/Tokyo")]
    arrays += [pa.array([Decimal("1030028400.0"), None]), pa.array([NOON.isoformat(), None]).dictionary_encode()]
    arrays += [pa.array([1030028400000, None], pa.timestamp("ms", "No/Where"))]
    for array in arrays:
        rows = read(parquet(tmp_path, label=["a", "b"], text=["one", "two"], when=array), received="when")
        assert [row.received for row in rows if isinstance(row, Row)] == [NOON, None], array.type
    for array in (pa.array([date(2002, 8, 22)], pa.date32()), pa.array([date(2002, 8, 22)], pa.date64())):
        (row,) = read(parquet(tmp_path, label=["a"], text=["one"], when=array), received="when")
        assert isinstance(row, Row) and row.received == NOON.replace(hour=0)
    far = parquet(tmp_path, label=["a"] * 2, text=["b"] * 2, when=pa.array([2**62, -(2**62)], pa.timestamp("us")))
    assert set(refused(read(far, received="when")).values()) == {"received_out_of_range"}
    pq.write_table(
        pa.table({"label": ["a"], "text": ["b"], "when": [datetime(2500, 1, 1)]}), far, use_deprecated_int96_timestamps=True
    )
    (row,) = read(far, received="when")
    assert isinstance(row, Row) and row.received == datetime(2500, 1, 1, tzinfo=UTC)


# CSV


@pytest.mark.parametrize(
    "content",
    [
        "label,text\nham,one,\nspam,two,\n",
        "label,text\nham,one\nspam,two,\n",
        "label,text\nham,one, ,\t,\nspam,two\n",
        "label,text,\nham,one,\nspam,two,\n",
        "label,text,,\nham,one,,\nspam,two,,\n",
        "label,text,note\nham,one,x,\nspam,two,y,\n",
        "label,text,note\nham,one\nspam,two\n",
        "note,label,text\n,ham,one,\n,spam,two,\n",
        "\ufefflabel,text\r\nham,one\r\nspam,two\r\n",
        '\ufeff"label","text"\nham,one\nspam,two',
        "\n \nlabel,text\n\nham,one\n   \nspam,two\n\n",
        "label,text\rham,one\rspam,two\r",
        "label;text\nham;one\nspam;two\n",
        '"label";"text"\n"ham";"one"\n"spam";"two"\n',
        "label\ttext\nham\tone\nspam\ttwo\n",
        '"label","text"\n"ham","one"\n"spam","two"\n',
    ],
)
def test_ordinary_csv_in_all_its_forms(tmp_path: Path, content: str) -> None:
    for name in ("data.csv", "DATA.CSV", "data.tsv"):
        rows = read(tmp_path / name, content)
        assert kept(rows) == TWO and not refused(rows)
        assert [row.id for row in rows] == [f"{name[:4]}#0", f"{name[:4]}#1"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_are_told_by_their_mark_and_gzip_by_its_content(tmp_path: Path, encoding: str) -> None:
    expected = [("ham", "grün 😀\u2028\x85\x0c x"), ("spam", "two")]
    table = "".join(f"{label},{text}\n" for label, text in [("label", "text"), *expected])
    lines = "".join(json.dumps({"label": a, "text": b}, ensure_ascii=False) + "\n" for a, b in expected)
    for ending, content in ((".csv", table), (".jsonl", lines), (".ndjson", lines), (".json", lines)):
        data = content.encode(encoding)
        assert kept(read(tmp_path / f"data{ending}", data)) == expected
        packed = read(tmp_path / f"DATA{ending.upper()}.GZ", zipped(data[:20]) + zipped(data[20:]))
        assert kept(packed) == expected and packed[0].id == "DATA#0" and packed[0].source == "DATA"
        assert kept(read(tmp_path / f"plain{ending}.gz", data)) == expected


def test_text_stays_as_it_is(tmp_path: Path) -> None:
    fields = [
        "NA",
        "nan",
        "None",
        "null",
        "N/A",
        "007",
        "3.0",
        "1e5",
        "TRUE",
        "a\0b",
        "\0",
        "two\r\nlines\n",
        "a\rb\r",
        "\r\r\nx\r",
        'say "hi", he',
        "x" * 200_000,
    ]
    with (tmp_path / "data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["label", "text"], *([field[:9], field] for field in fields)])
    assert kept(read(tmp_path / "data.csv")) == [(field[:9], field) for field in fields]
    rows = read(tmp_path / "blank.csv", "id,label,text\n007,  ,one\n07,\t,two\n7,,three\n", id="id")
    assert [(row.id, row.label) for row in rows if isinstance(row, Row)] == [("007", None), ("07", None), ("7", None)]


def test_rows_that_do_not_fit_are_quarantined_by_their_lines_and_the_others_are_kept(tmp_path: Path) -> None:
    content = (
        "label,text,note\n"
        'ham,"one\ntwo\nthree",\n'  # lines 2 to 4
        "spam,four,,x\n"  # 5
        "\n"
        'ham,"five" six,\n'  # 7
        "spam,seven\n"
        'ham,"eight\n'  # 9: its quote ends in the next row
        'spam,"nine"\n'
        "ham\n"
    )
    rows = read(tmp_path / "data.csv", content)
    assert kept(rows) == [("ham", "one\ntwo\nthree"), ("spam", "seven"), ("spam", "nine"), ("ham", "")]
    broken = "quote_not_closed_or_not_doubled"
    assert refused(rows) == {"data.csv:5": "more_fields_than_header", "data.csv:7": broken, "data.csv:9": broken}
    assert [row.id for row in rows if isinstance(row, Row)] == ["data#0", "data#3", "data#5", "data#6"]


# JSON Lines


def test_each_broken_line_is_a_row_of_the_quarantine_under_its_own_number(tmp_path: Path) -> None:
    good = '{"label":"ham","text":"one"}'
    lines = {
        '{"label":"ham",}': "not_json", "null": "not_an_object", "7": "not_an_object", '"x"': "not_an_object",
        "[]": "not_an_object",
        '["ham","x"]': "not_an_object", "[" * 100_000: "nested_too_deep", '{"a":' * 100_000: "nested_too_deep", "{": "not_json",
        '{"label":"ham","text":"a","text":"b"}': "key_twice: text", '{"label":1,"label":1,"text":""}': "key_twice: label",
        '{"label":"ham","text":{}}': "text_is_object", '{"label":["ham"],"text":"x"}': "label_is_array",
        good + good: "not_json",
        '{"label":"ham","text":"\udcff"}': "not_utf8", "\0\0\0": "not_json", "true": "not_an_object", '{"text":"x"': "not_json",
    }  # fmt: skip
    content = "\n".join(f"{line}\n{good}\n" for line in lines).encode(errors="surrogateescape")
    rows = read(tmp_path / "data.jsonl", content)
    assert refused(rows) == {f"data.jsonl:{1 + 3 * number}": reason for number, reason in enumerate(lines.values())}
    assert kept(rows) == [("ham", "one")] * len(lines)


def test_what_json_holds_beside_text(tmp_path: Path) -> None:
    values = {"true": "true", "1": "1", "1.0": "1", "0.0": "0", "-0": "0", "1.50": "1.50", "1e2": "100", "NaN": None,
              "null": None,
              "9007199254740993": "9007199254740993", "1" * 5000: "1" * 5000, "1e400": "1e+400", "1e-9": "0.000000001",
              "Infinity": "infinity", "1e99999999999999999999": "infinity", '"007"': "007", '" "': None, '"\\u0000a"': "\0a",
              '"\\ud83d\\ude00"': "😀", '"\\ud800x"': "\ud800x", '"a\tb\0c"': "a\tb\0c"}  # fmt: skip
    content = "".join(f'{{"label":{value},"text":"x","more":{{"a":1,"a":[2]}}}}\n' for value in values)
    assert [label for label, _ in kept(read(tmp_path / "data.jsonl", content))] == list(values.values())


def test_marks_of_files_that_were_joined_and_columns_that_only_some_lines_hold(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.jsonl", '\ufeff{"label":"ham"}\n\n\ufeff{"text":"two"}\r\n{}\n')
    assert kept(rows) == [("ham", ""), (None, "two"), (None, "")]


# What ends the run


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.csv", "label,text,text\nham,one,two\n", "the column 'text' stands twice"),
        ("d.csv", "label;text;label\nham;one;x\n", "the column 'label' stands twice"),
        ("d.csv", "label,text,x,x\nham,one,1,2\n", "the column 'x' stands twice"),
        ("d.csv", "label,text\nham,gr\udcf6\n", "line 2 is not UTF-8 (byte 0xf6); save the file as UTF-8"),
        ("d.csv", 'label,text\nham,"a\nb"\nspam,\udcff\n', "line 4 is not UTF-8"),
        ("d.csv", 'label,text\nham,one\nham,"never\nclosed\n', "the row at line 3 is never closed"),
        ("d.csv", "l\0a\0b\0e\0l\0", "its header holds NUL"),
        ("d.csv", 'label,"text\n', "never closed"),
        ("d.csv", 'label,te"xt,"a"b\n', "has no such column"),
        ("d.csv", 'label, text,"a\nb",\nham,one\n', "it has label, ' text', 'a\\nb', ''"),
        ("d.csv", "\ufeff", "the table is empty"),
        ("d.csv", " \n\n", "the table is empty"),
        ("d.tsv", "label\ttext\n", "the table holds no row"),
        ("d.csv.gz", zipped(b"label,text\nham,one\n" * 99)[:-9], "cannot be read as csv: Compressed file ended"),
        ("d.jsonl.gz", zipped(b"x" * 99)[:12] + b"broken" * 9, "cannot be read as jsonl"),
        ("d.csv", b"\xff\xfel\0a\0b", "cannot be read as csv"),
        ("d.jsonl", "\n\n", "the table holds no row"),
        (
            "d.jsonl",
            '{"label":"ham","body":"x"}',
            "ingest.columns.text = 'text': {path} has no such column; it has label, body",
        ),
        ("d.jsonl", '[{"label":"ham","text":"one"},\n{"label":"spam","text":"two"}]\n', "it is one JSON document"),
        ("d.json", '[{"label":"ham","text":"one"},{"label":"spam","text":"two"}]', "it is one JSON document"),
        ("d.json", '[\n{"label":"ham","text":"one"},\n{"label":"spam","text":"two"}\n]', "jq -c"),
        ("d.json", '{\n"label": "ham",\n"text": "one"\n}', "it is one JSON document"),
        ("d.parquet", b"PAR1 broken PAR1", "cannot be read as parquet"),
        ("d.parquet", b"", "cannot be read as parquet"),
        ("d.xlsx", b"PK", "a table ends in .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet"),
        ("d.parquet.gz", b"PK", "a table ends in"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line_that_names_it(tmp_path: Path, name: str, content: Any, says: str) -> None:
    path = tmp_path / name
    data = content if isinstance(content, bytes) else content.encode(errors="surrogateescape")
    with pytest.raises(StageError) as caught:
        read(path, data)
    assert says.replace("{path}", str(path)) in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_parquet_file_with_a_column_twice_or_with_none_that_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, names=["label", "text", "text"]), path)
    with pytest.raises(StageError, match="the column 'text' stands twice"):
        read(path)
    with pytest.raises(StageError, match="has no such column; it has label, body"):
        read(parquet(tmp_path, label=["a"], body=["b"]))
    with pytest.raises(StageError, match="the table holds no row"):
        read(parquet(tmp_path, label=pa.array([], pa.string()), text=pa.array([], pa.string())))
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(StageError, match="Is a directory"):
        read(tmp_path / "d.csv")


# The table of labels, and feedback


def rows_of(*names: str) -> Iterator[Row | Rejected]:
    for name in names:
        yield Row(name, None, "mail", "mail", {"subject": "", "text": "text"}, ())


@pytest.mark.parametrize("content", ["\ufefffile,label\r\na.eml,ham\r\nb.eml,\r\nc.eml,NA\r\na.eml,ham\r\n",
                                     "label;file\nham;a.eml\n ;b.eml\nNA;c.eml\n"])  # fmt: skip
def test_a_label_table_labels_files_and_tells_which_are_not_there(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    table = read_labels(tmp_path / "labels.csv")
    assert table == {"a.eml": "ham", "b.eml": None, "c.eml": "NA"}
    rows = list(labelled(rows_of("a.eml", "b.eml", "d.eml"), table, "labels.csv"))
    assert [(row.id, row.label) for row in rows[:3] if isinstance(row, Row)] == [
        ("a.eml", "ham"),
        ("b.eml", None),
        ("d.eml", None),
    ]
    assert rows[3:] == [Rejected("c.eml", "labels.csv", LABEL_WITHOUT_FILE)]
    assert next(labelled(rows_of("gru\u0308n"), {"gr\u00fcn": "ham"}, "")) == next(rows_of("gru\u0308n")).__class__(
        "gru\u0308n", None, "mail", "ham", {"subject": "", "text": "text"}, ()
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,label\na.eml,ham\nb.eml,ham\na.eml,spam\n", "a.eml is ham in line 2 and spam in line 4; keep one of them"),
        ("file,label\na.eml,ham\na.eml,\n", "a.eml is ham in line 2 and None in line 3"),
        ("name,label\na.eml,ham\n", "needs a header line with the columns file,label and rows; it has name, label"),
        ("file,label\n", "needs a header line with the columns file,label and rows"),
        ("", "the table is empty"),
        ("file,label\n,ham\n", "line 2: names no file"),
        ("file,label\na.eml,ham,spam\n", "line 2: more_fields_than_header"),
        ("file,file,label\na,b,c\n", "the column 'file' stands twice"),
    ],
)
def test_a_label_table_that_contradicts_itself_or_is_none_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(StageError) as caught:
        read_labels(tmp_path / "labels.csv")
    assert str(caught.value).startswith(f"ingest.label_table = {tmp_path / 'labels.csv'}: ") and says in str(caught.value)
    with pytest.raises(StageError, match="there is no such file"):
        read_labels(tmp_path / "gone.csv")


def test_feedback_gives_the_same_reasons_as_any_table(tmp_path: Path) -> None:
    line = {"id": "a", "received": None, "label": "ham", "subject": "", "text": " x "}
    lines = [
        json.dumps(line),
        "",
        "{",
        "null",
        "[" * 100_000,
        json.dumps(line)[:-1] + ',"id":"b"}',
        json.dumps(line | {"received": "2002"}),
    ]
    (tmp_path / "f.jsonl").write_text("\ufeff" + "\n".join(lines))
    rows = list(read_feedback(tmp_path / "f.jsonl", content_of))
    assert rows[0] == Row("a", None, "feedback", "ham", {"subject": "", "text": " x "}, ("time_missing",))
    assert [(row.id, row.reason) for row in rows if isinstance(row, Rejected)] == [
        ("f.jsonl:3", "not_json"),
        ("f.jsonl:4", "not_an_object"), ("f.jsonl:5", "nested_too_deep"), ("f.jsonl:6", "key_twice: id"),
        ("a", "received_out_of_range"),
    ]  # fmt: skip


# The account


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["ham", "spam", "", " ", "NA", "\0", "a,b", '"', "x\ny", "x\r", "1030028400", "2002-08-22", "a", "\ufeff", "0"]
)
SCALARS = (
    TEXT
    | st.text(max_size=5)
    | st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([1030028400, 20020822])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=4
)
NAMES = ("id", "received", "source", "label", "subject", "text")
MAPPED = {name: name for name in NAMES}


@st.composite
def csv_tables(draw: st.DrawFn) -> tuple[bytes, int]:
    rows = draw(st.lists(st.lists(TEXT, min_size=2, max_size=8), min_size=1, max_size=8))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=draw(st.sampled_from(["\n", "\r\n"])), quoting=draw(st.sampled_from([0, 1])))
    writer.writerow([*NAMES])
    for row in rows:
        writer.writerow(row)
        if draw(st.booleans()):
            out.write(draw(st.sampled_from(["\n", "  \n"])))
    broken = draw(st.lists(st.sampled_from(['ham,"a" b\n', '"x"y,z\n', "ham\n", "1,2,3,4,5,6,7\n"]), max_size=3))
    return (out.getvalue() + "".join(broken)).encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))), len(rows) + len(
        broken
    )


@st.composite
def json_tables(draw: st.DrawFn) -> tuple[bytes, int]:
    objects = [
        {name: draw(VALUES) for name in draw(st.sets(st.sampled_from([*NAMES, "x"])))} for _ in range(draw(st.integers(0, 6)))
    ]
    lines = [json.dumps(dict.fromkeys(NAMES)).encode(), *(json.dumps(entry).encode() for entry in objects)]
    lines += [json.dumps(value).encode() for value in draw(st.lists(VALUES, max_size=3))]
    garbage = (piece.replace(b"\n", b"").replace(b"\r", b"") for piece in draw(st.lists(st.binary(max_size=9), max_size=3)))
    lines += [b"{" + piece for piece in garbage]
    order = draw(st.permutations(lines))
    return b"".join(line + draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"])) for line in order), len(lines)


@st.composite
def parquet_tables(draw: st.DrawFn) -> tuple[bytes, int]:
    rows = draw(st.integers(1, 6))
    kinds = [(pa.string(), TEXT), (pa.binary(), st.binary(max_size=5)), (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
             (pa.float64(), st.floats()), (pa.bool_(), st.booleans()), (pa.timestamp("us"), st.integers(-(2**63), 2**63 - 1)),
             (pa.date32(), st.integers(-(2**31), 2**31 - 1)), (pa.large_string(), TEXT),
             (pa.float32(), st.floats(width=32))]  # fmt: skip
    columns = {}
    for name in NAMES:
        kind, values = draw(st.sampled_from(kinds))
        columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue(), rows


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0, 1, 2]).flatmap(lambda kind: st.tuples(st.just(kind), (csv_tables, json_tables, parquet_tables)[kind]()))
)
def test_rows_of_the_file_are_corpus_unlabelled_and_quarantine_together(made: tuple[int, tuple[bytes, int]]) -> None:
    kind, (content, count) = made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("t" + (".csv", ".jsonl", ".parquet")[kind])
        path.write_bytes(content)
        corpus, quarantine, unlabelled = collect(
            read_table(path, MAPPED, CONTENT), CONTENT, datetime(2010, 1, 1, tzinfo=UTC), 1.0, 1.0
        )
        report = account(corpus, quarantine, unlabelled, Counter())
        for name, frame in (("c", corpus), ("q", quarantine), ("u", unlabelled)):
            frame.to_parquet(Path(folder) / f"{name}.parquet")
            frame.to_csv(Path(folder) / f"{name}.csv", index=False)
    assert count == report["rows"] == len(corpus) + len(unlabelled) + sum(report["quarantined"].values())  # type: ignore[attr-defined]
    assert corpus.id.is_unique and not set(corpus.id) & set(unlabelled.id)
