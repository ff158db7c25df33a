"""The formats of tables: which one a file has, and its header and rows with their line numbers."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from quickstudy.core import ConfigError, DataError, MissingExtraError
from quickstudy.tables.delimited import Found, decoded, named_columns, read_delimited

__all__ = ["FORMATS", "format_of", "read_format"]

FORMATS = ("csv", "tsv", "jsonl", "ndjson", "json", "parquet", "xlsx")
"""The formats that are read, which are also the endings of their files."""

_OTHERS = ("xls", "ods", "feather", "arrow", "arff", "txt", "dat", "sav", "dta", "pkl", "pickle")
_MAGIC = (
    (b"PAR1", "parquet", "a Parquet file"),
    (b"PK\x03\x04", "xlsx", "a zip archive, or an Excel file"),
    (b"\xd0\xcf\x11\xe0", "", "an old Excel file (.xls)"),
    (b"\x1f\x8b", "", "compressed (gzip)"),
    (b"BZh", "", "compressed (bzip2)"),
    (b"\xfd7zXZ", "", "compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "", "compressed (zstd)"),
    (b"%PDF", "", "a PDF file"),
    (b"\x89PNG", "", "a picture"),
    (b"\xff\xd8\xff", "", "a picture"),
)


def format_of(data: bytes, ending: str, name: str) -> str:
    """Return the format of a file by its ending, or by its content where it has none.

    Args:
        data: the content.
        ending: of the path without its dot; empty = unknown.
        name: of the file, for errors.

    Raises:
        ConfigError: if it is no table that is read.
        DataError: if the content is of another format than the ending says.
    """
    if ending in _OTHERS:
        raise ConfigError(
            f"{name}: .{ending} is not read. Save the table as one of "
            f"{', '.join(f'.{known}' for known in FORMATS)}."
        )
    found = next(((known, what) for magic, known, what in _MAGIC if data.startswith(magic)), None)
    if ending in FORMATS:
        binary = ending in ("parquet", "xlsx")
        if found is not None and found[0] != ending:
            raise DataError(
                f"{name}: cannot be read as a table: it ends in .{ending} and is {found[1]}. "
                "Unpack it, or give it the ending that fits."
            )
        if binary and found is None:
            raise DataError(
                f"{name}: cannot be read as a table: this is no file of the format {ending}, or it "
                "is damaged. Use another copy."
            )
        return ending
    if found is not None and not found[0]:
        raise DataError(f"{name}: cannot be read as a table: it is {found[1]}. Unpack it first.")
    if found is not None:
        return found[0]
    return "jsonl" if data.lstrip()[:1] in (b"{", b"[") else "csv"


def read_format(data: bytes, format: str, name: str) -> Found:
    """Return the header and the rows of a table.

    Args:
        data: the content of the file.
        format: one of :data:`FORMATS`.
        name: of the file, for errors.

    Raises:
        DataError: if it holds no such table; the line is named.
        MissingExtraError: if a package is missing; the message names the extra.
    """
    if format in ("csv", "tsv"):
        found = read_delimited(data, name, tabs=format == "tsv")
    elif format in ("jsonl", "ndjson", "json"):
        found = _read_json(data, name)
    elif format == "parquet":
        found = _read_parquet(data, name)
    else:
        found = _read_sheet(data, name)
    if len(set(found.names)) < len(found.names):
        double = next(n for n in found.names if list(found.names).count(n) > 1)
        raise DataError(f"{name}: two columns are called {double!r}. Rename one.")
    return found


# ---------------------------------------------------------------- JSON


def _read_json(data: bytes, name: str) -> Found:
    """Read one object a line, or one list of objects."""
    text, notes = decoded(data, name)
    records = _one_list(text, name) if text.lstrip()[:1] == "[" else None
    unit = "line" if records is None else "object"
    if records is None:
        records = list(_each_line(text, name))
    names = list(dict.fromkeys(key for _, record in records for key in record))
    rows = [(line, [record.get(key) for key in names]) for line, record in records]
    return Found(names, rows, unit, notes)


def _each_line(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _record(_parsed(line, f"{name}, line {number}"), f"{name}, line {number}")


def _one_list(text: str, name: str) -> list[tuple[int, dict[str, Any]]]:
    found = _parsed(text, name)
    return [(i, _record(row, f"{name}, object {i}")) for i, row in enumerate(found, 1)]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:  # ValueError also for numbers of 5,000 digits
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}: cannot be read as a table: this is not valid JSON ({reason}). Write one "
            "object per line."
        ) from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} is given twice")
    return found


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: cannot be read as a table: expected an object {{column: cell}}; got "
            f"{type(value).__name__}. Write one object per row."
        )
    return value


# ---------------------------------------------------------------- Parquet and Excel


def _read_parquet(data: bytes, name: str) -> Found:
    import pyarrow as pa
    import pyarrow.parquet as pa_parquet

    from quickstudy.tables.arrow import arrow_columns

    try:
        table = pa_parquet.ParquetFile(io.BytesIO(data)).read()
        names, columns, categories = arrow_columns(table)
    except (OSError, pa.ArrowException, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: cannot be read as a table ({reason}). Use another copy."
        ) from error
    rows = [(i, list(row)) for i, row in enumerate(zip(*columns, strict=True))]
    return Found(names, rows, "row", categories=categories)


def _read_sheet(data: bytes, name: str) -> Found:
    """Read the first sheet that is not empty of an Excel file."""
    try:
        import openpyxl
    except ImportError as error:
        raise MissingExtraError("openpyxl", "excel") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and forms, which are not read
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = [sheet for sheet in book.worksheets if hasattr(sheet, "iter_rows")]
            read = ((sheet.title, _filled(sheet.iter_rows(values_only=True))) for sheet in sheets)
            title, rows = next(((t, r) for t, r in read if r), ("", []))
            others = [sheet.title for sheet in sheets if sheet.title != title]
    except Exception as error:  # of many kinds, as the file is a zip of XML
        raise DataError(
            f"{name}: cannot be read as a table ({type(error).__name__}: {error}). Open it and "
            "save it again, or save it as CSV."
        ) from error
    if not rows:
        raise DataError(f"{name}: the table has no rows. Give one row per example.")
    notes = [f"the sheet {title!r} was read, and not {', '.join(map(repr, others))}"]
    (_, header), *body = rows
    width = max(len(row) for _, row in rows)
    padded = [(line, [*row, *[None] * (width - len(row))]) for line, row in body]
    names = [*("" if cell is None else str(cell).strip() for cell in header)]
    names += [""] * (width - len(names))
    return named_columns(names, padded, "row", notes if others else [])


def _filled(rows: Iterator[Sequence[Any]]) -> list[tuple[int, list[Any]]]:
    """Return the rows that hold something, with their numbers in the sheet."""
    return [
        (number, list(row))
        for number, row in enumerate(rows, 1)
        if any(cell is not None and cell != "" for cell in row)
    ]
