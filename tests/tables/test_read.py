"""Tables are read as they are written, rows are counted as an editor counts them."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quickstudy.core import ConfigError, DataError, QuickstudyError
from quickstudy.tables import Table, read_table

PLAIN = "a,b\n1,x\n2,é\n"
SAME = {"a": ["1", "2"], "b": ["x", "é"]}


def of(text: str | bytes, format: str | None = None) -> Table:
    return read_table(io.BytesIO(text if isinstance(text, bytes) else text.encode()), format=format)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (PLAIN.encode(), ""),
        (PLAIN.encode("utf-8-sig"), ""),
        (PLAIN.encode("utf-16"), "UTF-16"),
        (PLAIN.encode("utf-16-le"), "UTF-16"),
        (PLAIN.encode("latin-1"), "not UTF-8 (line 3)"),
        (PLAIN.replace(",", ";").encode(), "semicolons"),
        (PLAIN.replace(",", "\t").encode(), "tabs"),
        (PLAIN.replace(",", "|").encode(), "vertical bars"),
        (b"sep=;\n" + PLAIN.replace(",", ";").encode(), "semicolons"),
        (PLAIN.replace("\n", "\r\n").encode(), ""),
        (PLAIN.replace("\n", "\r").encode(), ""),
        (b"\n\n" + PLAIN.encode() + b"\n \n,\n", "1 empty line passed over"),
        (b" a , b \n1,x\n2,\xc3\xa9,\n", ""),
    ],
)
def test_text_files_of_many_writers_are_the_same_table(data, says):
    table = of(data)
    assert table.columns == SAME
    assert says in "; ".join(table.notes)
    assert bool(table.notes) == bool(says)


def test_cells_are_text_as_written():
    table = of('n,t,d\n007,"a ""b"",\nc",2020-01-01\nNA,true,1e3\n')
    assert table.columns == {
        "n": ["007", "NA"],
        "t": ['a "b",\nc', "true"],
        "d": ["2020-01-01", "1e3"],
    }
    assert list(table.rows) == ["the table, line 2", "the table, line 4"]
    assert table.lines == [2, 4]


def test_rows_are_counted_as_their_editor_counts(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").rows)[-1] == "t.parquet, row 2"
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_table(tmp_path / "t.jsonl").rows) == ["t.jsonl, line 1", "t.jsonl, line 3"]
    pytest.importorskip("openpyxl")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    assert list(read_table(str(tmp_path / "t.xlsx")).rows)[-1] == "t.xlsx, row 4"
    assert list(read_table(frame).rows) == ["row 0", "row 1", "row 2"]


def test_separators_inside_cells_are_no_separators():
    assert of("text;label\nhello, world;a\nbye, now, then;b\n").names == ("text", "label")
    assert of("text,label\na; b,x\nc,y\n").names == ("text", "label")
    assert of('text,label\n"a, b",x\n').columns["text"] == ["a, b"]


def test_columns_without_names():
    assert of(",a\n0,x\n1,y\n").names == ("", "a")
    assert of("a,b,,\n1,2,,\n").names == ("a", "b")
    assert of("a,,\n1,2,3\n").names == ("a", "column 2", "column 3")


def test_json_of_several_shapes(tmp_path):
    rows = [{"a": 1, "b": None}, {"c": True}]
    expected = {"a": [1, None], "b": [None, None], "c": [None, True]}
    lines = "\n".join(map(json.dumps, rows))
    assert of(lines).columns == of(json.dumps(rows, indent=1)).columns == expected
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert read_table(tmp_path / "t.json").columns == expected


def test_tables_in_memory():
    frame = pd.DataFrame({"a": [1, 2], "b": pd.Categorical([3, 4])})
    assert read_table(frame).columns == {"a": [1, 2], "b": [3, 4]}
    assert read_table(frame).categories == {"b"}
    assert read_table(pa.table({"a": [1, None]})).columns == {"a": [1, None]}
    assert read_table(pa.RecordBatch.from_pydict({"a": [1]})).columns == {"a": [1]}
    assert read_table([{"a": 1}, {"b": 2}]).columns == {"a": [1, None], "b": [None, 2]}
    assert read_table({"a": [1, 2]}).columns == {"a": [1, 2]}
    assert read_table(io.StringIO("a,b\n1,2\n")).columns == {"a": ["1"], "b": ["2"]}


def test_standard_input(monkeypatch):
    class Input:
        buffer = io.BytesIO(b'{"a": 1}\n')

    monkeypatch.setattr(sys, "stdin", Input)
    table = read_table("-")
    assert (table.columns, list(table.rows)) == ({"a": [1]}, ["standard input, line 1"])


def test_arrow_types_that_python_lacks(tmp_path):
    columns = {
        "ns": pa.array([1], pa.timestamp("ns", "Europe/Berlin")),
        "late": pa.array([2**60], pa.timestamp("us")),
        "duration": pa.array([1], pa.duration("ns")),
        "words": pa.array(["x"]).dictionary_encode(),
        "decimal": pa.array([1]).cast(pa.decimal128(30, 2)),
        "list": pa.array([[1]]),
        "struct": pa.array([{"a": 1}]),
        "bytes": pa.array([b"\xff"]),
        "time": pa.array([1], pa.time64("ns")),
        "null": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert set(table.names) == set(columns)
    assert table.categories == {"words"}


# what it holds, and what the message says
FAULTY = [
    (b"", "no rows"),
    (b"\xef\xbb\xbf", "no rows"),
    (b"a,b\n", "no rows"),
    (b"a,a\n1,2\n", "two columns are called 'a'"),
    (b"a,b\n1,2\n3\n", "line 3: .*it has 1 column, and the header has 2"),
    (b"a,b\n1,2\n1,2,3\n", "line 3: .*it has 3 columns"),
    (b'a,b\n1,"2\n3,4\n', "line 2: .*never closed"),
    (b'a,b\n1,"2"x\n', "line 2"),
    (b"a,b\n1,\x002\n", "line 2: .*control character"),
    (b"\x1f\x8b\x08\x00", "gzip"),
    (b"%PDF-1.4", "PDF"),
    (b"PAR1", "Parquet|cannot be read"),
    (b"PK\x03\x04 no archive", "cannot be read"),
    (b'{"a": 1', "line 1: .*not valid JSON"),
    (b'{"a": 1}\n[2]\n', "line 2: .*expected an object"),
    (b'{"a": 1, "a": 2}\n', "'a' is given twice"),
    (b'{"a": "\\ud800"}\n', "line 1, column 'a': the text is not valid Unicode"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b"[1, 2]", "object 1: .*expected an object"),
    (b"\xff\xfea", "UTF-16"),
]


@pytest.mark.parametrize(("data", "says"), FAULTY)
def test_faulty_files_are_named_with_the_line(data, says):
    with pytest.raises(DataError, match=f"the table.*({says})"):
        of(data)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    (tmp_path / "wrong.csv").write_bytes(b"PAR1 and so on")
    (tmp_path / "t.ods").write_bytes(b"PK")
    for source, says in (
        (tmp_path / "none.csv", "there is no such file"),
        (tmp_path / "folder.csv", "this is a folder"),
        (tmp_path / "pipe.csv", "no regular file"),
        (tmp_path / "circle.csv", "cannot be read"),
        (tmp_path / "wrong.csv", "is a Parquet file"),
        (tmp_path / "t.ods", r"\.ods is not read"),
        (tmp_path / ("x" * 300 + ".csv"), "cannot be read"),
        ("/dev/zero", "no regular file"),
        ("a\0b.csv", "cannot be read"),
        ("", "no path"),
    ):
        with pytest.raises(QuickstudyError, match=says):
            read_table(source)


@pytest.mark.parametrize("source", [None, 5, 1.5, True, b"a,b", [1], [[1]], object(), {1, 2}, {}])
def test_what_is_no_table(source):
    with pytest.raises((ConfigError, DataError)):
        read_table(source)


def test_formats_are_checked(tmp_path):
    (tmp_path / "t.data").write_text(PLAIN)
    assert read_table(tmp_path / "t.data", format="csv").columns == SAME
    with pytest.raises(ConfigError, match="no format 'html'"):
        read_table(tmp_path / "t.data", format="html")


def test_many_columns_and_long_cells():
    wide = ",".join(f"c{i}" for i in range(20_000))
    table = of(wide + "\n" + ",".join("1" for _ in range(20_000)) + "\n")
    assert len(table.names) == 20_000
    assert len(of('a,b\n"' + "x" * 2_000_000 + '",1\n').columns["a"][0]) == 2_000_000


def test_a_sheet_without_the_extra(monkeypatch, tmp_path):
    pytest.importorskip("openpyxl")
    pd.DataFrame({"a": [1]}).to_excel(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"quickstudy\[excel\]"):
        read_table(tmp_path / "t.xlsx")


def test_the_first_sheet_that_is_not_empty(tmp_path: Path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.create_sheet("data")
    for row in ([], ["a", "b"], [1, "x"], [], [2.5, None]):
        sheet.append(row)
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.columns == {"a": [1, 2.5], "b": ["x", None]}
    assert [row.split(", ")[1] for row in table.rows] == ["row 3", "row 5"]
    assert "'data' was read, and not 'Sheet'" in table.notes[0]


def test_a_table_is_whole():
    with pytest.raises(DataError, match="equally long"):
        Table({"a": [1, 2]}, ["row 0"], [0])
    with pytest.raises(DataError, match="lines"):
        Table({"a": [1]}, ["row 0"], [])
    table = read_table([{"a": "1,5"}, {"a": "2"}])
    assert table.values() == {"a": [1.5, 2.0]}
    assert table.take([1]).only(["a"]).columns == {"a": ["2"]}
    assert table.without(["a"]).names == ()
