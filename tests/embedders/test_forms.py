"""The same row gives the same embedding, in whatever form it comes, whatever stands beside it."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core import DataError
from quickstudy.embedders import get_embedder
from quickstudy.embedders.tables import TableEmbedder
from quickstudy.tasks.labelled import read_examples, read_inputs
from quickstudy.tasks.roles import Roles

# what a CSV file says, and the same value as a typed file or a frame has it
VALUES: dict[str, list[tuple[str, Any]]] = {
    "truth values": [("true", True), ("false", False)],
    "truth values and a word": [("true", True), ("false", False), ("unsure", "unsure")],
    "whole numbers": [("1", 1), ("2", 2), ("10", 10)],
    "numbers": [("1.0", 1.0), ("2.5", 2.5), ("-3", -3)],
    "numbers and a word": [("1.0", 1.0), ("2.0", 2.0), ("n/s", "n/s")],
    "exponents and a word": [("1e3", 1e3), ("2e3", 2000), ("z", "z")],
    "long ids and a word": [
        ("12345678901234", 12345678901234),
        ("223456789012345", 223456789012345),
        ("z", "z"),
    ],
    "codes": [("007", "007"), ("012", "012"), ("X12", "X12")],
    "codes of digits alone": [("007", "007"), ("012", "012"), ("013", "013")],
    "dates": [("2020-01-01", dt.date(2020, 1, 1)), ("2021-02-03", dt.date(2021, 2, 3))],
    "moments": [
        ("2020-01-01 08:30:00", dt.datetime(2020, 1, 1, 8, 30)),
        ("2021-01-01T00:00:00", dt.datetime(2021, 1, 1)),
    ],
    "dates and a word": [("2020-01-01", dt.date(2020, 1, 1)), ("never", "never")],
    "times of day": [("08:00", dt.time(8)), ("09:30", dt.time(9, 30))],
    "times and a word": [("08:00", dt.time(8)), ("late", "late")],
    "countries": [("NA", "NA"), ("EU", "EU")],
    "words of what is missing": [("null", "null"), ("nan", "nan"), ("None", "None")],
    "words": [("red", "red"), ("blue", "blue"), (" grün, hell ", " grün, hell ")],
}


def typed(rows: list[dict[str, Any]]) -> bool:
    return len({type(row["code"]) for row in rows}) == 1


def as_frame(given: list[tuple[str, Any]], dtype: str | None = None) -> pd.DataFrame:
    frame = pd.DataFrame({"code": [value for _, value in given], "size": SIZES[: len(given)]})
    return frame if dtype is None else frame.astype({"code": dtype})


def records(given: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"code": value, "size": size}
        for (_, value), size in zip(given, SIZES[: len(given)], strict=True)
    ]


def separated(mark: str) -> Callable[[list[tuple[str, Any]], Path], Any]:
    def write(given: list[tuple[str, Any]], folder: Path) -> Path:
        path = folder / ("t.tsv" if mark == "\t" else "t.csv")
        cells = [
            ['"' + text + '"', str(size)] for (text, _), size in zip(given, SIZES, strict=False)
        ]
        path.write_text("\n".join(mark.join(row) for row in [["code", "size"], *cells]), "utf-8")
        return path

    return write


def as_jsonl(given: list[tuple[str, Any]], folder: Path) -> Path:
    path = folder / "t.jsonl"
    path.write_text("".join(json.dumps(r, default=str) + "\n" for r in records(given)), "utf-8")
    return path


def as_arrow(given: list[tuple[str, Any]], folder: Path) -> pa.Table:
    rows = records(given)
    if not typed(rows):  # Arrow has one type for a column
        rows = [row | {"code": text} for row, (text, _) in zip(rows, given, strict=True)]
    return pa.Table.from_pylist(rows)


def as_parquet(given: list[tuple[str, Any]], folder: Path) -> Path:
    pq.write_table(as_arrow(given, folder), folder / "t.parquet")
    return folder / "t.parquet"


def as_sheet(given: list[tuple[str, Any]], folder: Path) -> Path:
    pytest.importorskip("openpyxl")
    as_frame(given).to_excel(folder / "t.xlsx", index=False)
    return folder / "t.xlsx"


FORMS: dict[str, Callable[[list[tuple[str, Any]], Path], Any]] = {
    "csv": separated(","),
    "semicolons": separated(";"),
    "tsv": separated("\t"),
    "jsonl": as_jsonl,
    "parquet": as_parquet,
    "xlsx": as_sheet,
    "arrow": as_arrow,
    "records": lambda given, folder: records(given),
    "columns": lambda given, folder: as_frame(given).to_dict("list"),
    "pandas": lambda given, folder: as_frame(given),
    "pandas objects": lambda given, folder: as_frame(given, "object"),
    "pandas texts": lambda given, folder: as_frame([(t, t) for t, _ in given], "string"),
    "open file": lambda given, folder: io.BytesIO(FORMS["csv"](given, folder).read_bytes()),
}
SIZES = [1.5, 2.0, -1.0, 4.25, 3.0, 2.5, 0.0, 9.0]
ROLES = Roles("table", ("code", "size"))


def as_input(form: str, given: list[tuple[str, Any]], folder: Path) -> Any:
    """Return what an embedder reads: files as ``fit`` and ``predict`` read them."""
    X = FORMS[form](given, folder)
    return read_inputs([X], roles=ROLES).x if isinstance(X, Path | io.BytesIO) else X


def embedded(embedder: TableEmbedder, X: Any) -> np.ndarray:
    return embedder.embed(embedder.read(X))


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TableEmbedder]:
    """For each kind of values, an embedder fitted to a CSV file."""
    folder = tmp_path_factory.mktemp("fits")
    found = {}
    for kind, values in VALUES.items():
        read = TableEmbedder()
        found[kind] = read.fit(read.read(as_input("csv", values * 2, folder)))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", VALUES)
def test_every_form_says_the_same(kind, form, fits, tmp_path):
    values, embedder = VALUES[kind], fits[kind]
    expected = embedded(embedder, as_input("csv", values, tmp_path))
    distinct = len(np.unique(expected[:, : embedder.dim - 1], axis=0))
    assert distinct == len(values), "the values are told apart"
    np.testing.assert_allclose(embedded(embedder, as_input(form, values, tmp_path)), expected)
    for i, value in enumerate(values):  # alone, and so without what other cells would tell
        alone = embedded(embedder, as_input(form, [value], tmp_path))
        np.testing.assert_allclose(alone[0, : embedder.dim - 1], expected[i, : embedder.dim - 1])
    # fitted to this form, the columns are the same ones
    other = TableEmbedder()
    other = other.fit(other.read(as_input(form, values * 2, tmp_path)))
    assert [(c.name, c.kind, c.categories) for c in other.columns] == [
        (c.name, c.kind, c.categories) for c in embedder.columns
    ]
    np.testing.assert_allclose(embedded(other, as_input("csv", values, tmp_path)), expected)


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_row_does_not_depend_on_its_neighbours(data, fits, tmp_path_factory):
    kind = data.draw(st.sampled_from(sorted(VALUES)))
    form = data.draw(st.sampled_from([f for f in sorted(FORMS) if f != "xlsx"]))
    chosen = data.draw(st.lists(st.sampled_from(VALUES[kind]), min_size=1, max_size=6))
    folder = tmp_path_factory.mktemp("rows")
    embedder = fits[kind]
    found = embedded(embedder, as_input(form, chosen, folder))[:, : embedder.dim - 1]
    for row, value in zip(found, chosen, strict=True):
        alone = embedded(embedder, as_input("csv", [value], folder))[0, : embedder.dim - 1]
        np.testing.assert_allclose(row, alone)


SPELLED = [
    ("truth values", ["true", "True", "TRUE", True, np.True_, 1, "1"]),
    ("numbers", ["2.5", 2.5, "2.50", "25e-1", " 2.5 ", np.float64(2.5)]),
    ("numbers and a word", ["1", "1.0", "1.00", 1, 1.0, "1e0", np.int8(1), np.float32(1)]),
    ("exponents and a word", ["1e3", "1000", 1000, 1e3, "1000.0", "1E3"]),
    ("long ids and a word", ["223456789012345", 223456789012345]),
    ("dates", ["2020-01-01", dt.date(2020, 1, 1), pd.Timestamp("2020-01-01"), "2020-01-01T00:00Z"]),
    ("dates and a word", ["2020-01-01", pd.Timestamp("2020-01-01"), np.datetime64("2020-01-01")]),
    ("times of day", ["08:00", "8:00", "08:00:00", dt.time(8)]),
]


@pytest.mark.parametrize(("kind", "spelled"), SPELLED)
def test_one_value_in_many_spellings(kind, spelled, fits):
    rows = [{"code": value, "size": 1} for value in spelled]
    z = embedded(fits[kind], rows)
    np.testing.assert_allclose(z, np.repeat(z[:1], len(z), axis=0))


def test_codes_with_zeros_are_no_numbers(fits):
    z = embedded(fits["codes of digits alone"], [{"code": c, "size": 1} for c in ("007", "7", 7)])
    assert z[0, :3].sum() == 1
    assert not z[1:, :3].any()


@pytest.mark.parametrize(
    ("cells", "kind", "numbers"),
    [
        (["1,5", "2", "-0,25"], "number 1234,5", [1.5, 2, -0.25]),
        (["1.234,5", "2", "1.000"], "number 1.234,5", [1234.5, 2, 1000]),
        (["1,234.5", "2", "1,000"], "number 1,234.5", [1234.5, 2, 1000]),
        (["1,234", "5,678"], "number 1,234.5", [1234, 5678]),
        (["1.234", "5.678"], "number", [1.234, 5.678]),
    ],
)
def test_numbers_as_countries_write_them(cells, kind, numbers):
    X = [{"n": cell} for cell in cells]
    read = TableEmbedder()
    embedder = read.fit(read.read(X))
    assert embedder.columns[0].kind == kind
    assert [item.value.values[0] for item in embedder.read(X)] == numbers
    # alone as well: the column remembers how its numbers are written
    assert embedder.read(X[-1:])[0].value.values[0] == numbers[-1]
    assert embedder.read([{"n": 7.5}])[0].value.values[0] == 7.5


def test_semicolons_mean_decimal_commas(tmp_path):
    (tmp_path / "t.csv").write_text("n;label\n1,234;a\n2,5;b\n")
    (tmp_path / "u.csv").write_text("n;label\n1,234;a\n2,345;b\n")
    for name in ("t.csv", "u.csv"):
        x = read_examples(tmp_path / name).x
        assert TableEmbedder().read(x)[0].value.values[0] == 1.234


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "pandas", "records"])
def test_the_row_and_value_that_are_wrong_are_blamed(form, fits, tmp_path):
    good, bad = ("1", 1), ("x", "x")
    with pytest.raises(
        DataError, match="'x' is not a number, but the support set has numbers"
    ) as e:
        embedded(fits["numbers"], as_input(form, [good, bad], tmp_path))
    where = {"csv": r"t\.csv, line 3", "jsonl": "line 2"}.get(form, "row 1")
    assert e.match(f"{where}, column 'code'")
    empty = ("", "") if form in ("csv", "parquet") else ("", None)
    with pytest.raises(DataError, match="column 'code': the value is missing"):
        embedded(fits["words"], as_input(form, [("red", "red"), empty], tmp_path))


def test_a_word_of_what_is_missing_is_missing_among_numbers(fits):
    for cell in ("NA", "nan", "null", "", "N/A", None, float("nan"), pd.NA, pd.NaT):
        with pytest.raises(DataError, match="row 0, column 'code': the value is missing"):
            embedded(fits["numbers"], [{"code": cell, "size": 1}])


@pytest.mark.parametrize("cell", [[1], {"a": 1}, (1, 2), {1}, np.zeros(2)])
@pytest.mark.parametrize("kind", ["words", "numbers", "dates"])
def test_a_cell_of_several_values_is_refused(kind, cell, fits):
    with pytest.raises(DataError, match=r"row 0, column 'code': .* no number"):
        fits[kind].read([{"code": cell, "size": 1}])


@pytest.mark.parametrize("kind", VALUES)
@given(
    cell=st.one_of(
        st.text(),
        st.integers(),
        st.floats(),
        st.dates(),
        st.times(),
        st.booleans(),
        st.decimals(),
        st.timedeltas(),
        st.binary(),
        st.none(),
        st.datetimes(),
    )
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_cell_is_read_or_refused_by_name(kind, cell, fits):
    try:
        z = embedded(fits[kind], [{"code": cell, "size": 1}])
    except DataError as error:
        said = str(error)
    else:
        said = "row 0, column 'code'" if np.isfinite(z).all() else "not finite"
    assert "row 0, column 'code'" in said


def test_further_columns_do_not_matter_and_missing_ones_do(fits):
    X = as_frame(VALUES["words"])
    z = embedded(fits["words"], X)
    np.testing.assert_array_equal(
        embedded(fits["words"], X.assign(note="x")[["note", "size", "code"]]), z
    )
    with pytest.raises(DataError, match=r"lacks the column.*'code'"):
        fits["words"].read(X[["size"]])


def test_kinds_survive_a_file(fits):
    for embedder in fits.values():
        config = json.loads(json.dumps(embedder.config()))
        assert get_embedder(config).columns == embedder.columns
    config["columns"][0]["kind"] = "colour"
    with pytest.raises(DataError, match="colour"):
        get_embedder(config)
