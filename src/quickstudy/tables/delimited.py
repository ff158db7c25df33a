"""Text files of separated columns, as people and programs write them: header, rows, line numbers.

No cell is interpreted: all are text. Encoding and separator are found from the file itself, and
what is unusual about them is said.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.core import DataError

__all__ = ["Found", "decoded", "named_columns", "read_delimited"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ROWS_SNIFFED = 200
_EXCEL_SEPARATOR = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its first two bytes are the same
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_MOST_CONTROL = 0.05  # of the characters of a text; a stray one is no reason to refuse a file

# the longest field is a setting of the whole process
_LIMIT = threading.Lock()


@dataclass(frozen=True, slots=True)
class Found:
    """A table as a format gives it.

    Args:
        names: of the columns; empty for one that holds row numbers.
        rows: number of each row as the user's editor counts it, and its cells.
        unit: what the numbers count: ``"line"``, ``"row"``, ``"object"``.
        notes: what a user should know about how it was read.
        categories: columns that the file itself calls categorical.
        delimiter: what separates the columns; empty for other formats.
    """

    names: Sequence[str]
    rows: Sequence[tuple[int, list[Any]]]
    unit: str
    notes: Sequence[str] = ()
    categories: Sequence[str] = ()
    delimiter: str = ""


def read_delimited(data: bytes, name: str, *, tabs: bool = False) -> Found:
    """Return the header and rows of a file of separated columns.

    Lines that hold nothing are passed over. A cell may contain line breaks, in quotes.

    Args:
        data: the content of the file.
        name: of the file, for errors.
        tabs: whether the columns are separated by tabs.

    Raises:
        DataError: if a line has another number of columns than the header, or a quote is not
            closed; the line is named.
    """
    text, notes = decoded(data, name)
    skipped = 0
    if (excel := _EXCEL_SEPARATOR.match(text)) is not None:
        separator, text, skipped = excel[1], text[excel.end() :], 1
    else:
        separator = "\t" if tabs and "\t" in text else _separator(text)
    usual = "\t" if tabs else ","
    rows = [(line + skipped, row) for line, row in _parsed(text, separator, name, skipped)]
    if not rows:
        raise DataError(f"{name}: the table has no rows. Give one row per example.")
    (_, header), *body = rows
    names = [cell.strip() for cell in header]
    width, empty = len(names), 0
    kept: list[tuple[int, list[Any]]] = []
    for line, row in body:
        if not any(cell.strip() for cell in row):
            empty += 1
            continue
        if len(row) != width and (len(row) < width or any(cell.strip() for cell in row[width:])):
            raise DataError(
                f"{name}, line {line}: cannot be read as a table: it has {len(row)} "
                f"column{'s' * (len(row) != 1)}, and the header has {width} (separated by "
                f"{_SEPARATORS.get(separator, repr(separator))}). Correct the line; a cell that "
                "contains the separator needs quotes."
            )
        kept.append((line, row[:width]))
    if separator != usual and width > 1:
        word = _SEPARATORS.get(separator, repr(separator))
        notes.append(f"its columns are separated by {word}")
    if empty:
        notes.append(f"{empty} empty line{'s' * (empty > 1)} passed over")
    found = named_columns(names, kept, "line", notes)
    return Found(found.names, found.rows, "line", notes, delimiter=separator)


def named_columns(
    names: Sequence[str], rows: list[tuple[int, list[Any]]], unit: str, notes: Sequence[str]
) -> Found:
    """Return a table without columns that have neither name nor content.

    The only one without a name keeps none: it holds row numbers, as pandas writes them. Where there
    are several, they are called ``column 4``.
    """
    kept = [
        i
        for i, name in enumerate(names)
        if name or any(row[i] is not None and row[i] != "" for _, row in rows)
    ]
    nameless = sum(not names[i] for i in kept)
    named = [names[i] or ("" if nameless == 1 else f"column {i + 1}") for i in kept]
    if len(kept) == len(names):
        return Found(named, rows, unit, notes)
    return Found(named, [(line, [row[i] for i in kept]) for line, row in rows], unit, notes)


def decoded(data: bytes, name: str) -> tuple[str, list[str]]:
    """Return the text of a file, and what is unusual about its encoding.

    Args:
        data: the content of the file.
        name: of the file, for errors.

    Raises:
        DataError: if it is no text.
    """
    encoding = next((found for bom, found in _BOMS if data.startswith(bom)), None)
    notes: list[str] = []
    if encoding is None and b"\x00" in data[:1000]:
        encoding = _without_bom(data)
    if encoding not in (None, "utf-8-sig"):
        notes.append(f"its encoding is {str(encoding).upper()}")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DataError(
                f"{name}: cannot be read as a table: it is not valid {encoding.upper()} "
                f"({error.reason}, at byte {error.start:,}). Save it as UTF-8."
            ) from error
        text, line = _western(data), data[: error.start].count(b"\n") + 1
        notes.append(
            f"it is not UTF-8 (line {line}) and was read as Windows-1252; if letters look wrong, "
            "save it as UTF-8"
        )
    odd = _CONTROL.search(text)
    if odd is not None and (
        "\x00" in text or len(_CONTROL.findall(text)) > _MOST_CONTROL * len(text)
    ):
        line = text.count("\n", 0, odd.start()) + 1
        raise DataError(
            f"{name}, line {line}: cannot be read as a table: it holds the control character "
            f"{odd[0]!r}, so this is no text file, or it is damaged. Save it as UTF-8 text."
        )
    return text, notes


def _without_bom(data: bytes) -> str | None:
    """Return the encoding of text whose every other byte is zero, which is UTF-16."""
    even, odd = data[:1000:2], data[1:1000:2]
    if odd.count(0) > len(odd) / 2 and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > len(even) / 2 and not odd.count(0) else None


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes have no meaning there
        return data.decode("latin-1")


def _separator(text: str) -> str:
    """Return what separates the columns: with it, the first lines have one number of columns."""
    best, most = ",", 0
    for separator in _SEPARATORS:
        widths = _widths(text, separator)
        if not widths or widths[0] < 2:
            continue
        if len(set(widths)) == 1:
            return separator
        if most == 0:  # no file is whole with any: an error should speak of the likeliest
            best, most = separator, widths[0]
    return best


def _widths(text: str, separator: str) -> list[int]:
    """Return the numbers of columns of the first rows."""
    found: list[int] = []
    with _LIMIT:
        csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    found.append(len(row))
                if len(found) == _ROWS_SNIFFED:
                    break
        except csv.Error:
            pass
    return found


def _parsed(text: str, separator: str, name: str, before: int) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, each with the line on which it begins."""
    rows: list[tuple[int, list[str]]] = []
    with _LIMIT:
        csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        line = 1
        try:
            for row in reader:
                if row and (len(row) > 1 or row[0].strip()):
                    rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            what = "a quote is opened and never closed" if "end of data" in f"{error}" else error
            raise DataError(
                f"{name}, line {line + before}: cannot be read as a table ({what}). Correct the "
                'quotes of this line; a quote inside a quoted cell is written twice: "".'
            ) from error
    return rows
