"""Cells of tables: what one says as a number, a date, a time, a truth value or a category.

A table's columns get their kinds once, from the examples that a task is learned from. Later cells
are read by the kind of their column, each by itself: so a cell means the same alone, beside others,
as the text of a CSV file, and as the number or date of a data frame.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from quickstudy.core.values import is_missing

__all__ = [
    "CATEGORY",
    "KINDS",
    "NUMBER_KINDS",
    "is_empty",
    "kind_of",
    "noun_of",
    "read_cell",
    "shown",
]

CATEGORY = "category"

NUMBER_KINDS = ("number", "number 1,234.5", "number 1234,5", "number 1.234,5")
"""Numbers, by how the texts of the column write them."""

KINDS = (*NUMBER_KINDS, "truth", "date", "time", "duration", CATEGORY)
"""All kinds of columns. A date is read as days since 1970 in UTC, a time of day as hours, a
duration as days, a truth value as 1 or 0."""

_SECONDS_OF_DAY, _SECONDS_OF_HOUR = 86_400, 3_600
_MISSING_WORDS = frozenset({"na", "n/a", "#n/a", "#na", "nan", "-nan", "null", "nat", "<na>"})
_INFINITE = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_NESTED = (list, tuple, dict, set, frozenset, np.ndarray)

# a number with leading zeros (007) is a code; "[0-9]" and not \d, which also matches other digits
_PLAIN = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LENIENT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_THOUSANDS_DOT = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")  # 1.234: also a plain number
_THOUSANDS_DOTS = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3}){2,}")
_THOUSANDS_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # 1,234: also a decimal comma
_THOUSANDS_COMMAS = re.compile(r"[+-]?[1-9][0-9]{0,2}((,[0-9]{3}){2,}|(,[0-9]{3})+\.[0-9]+)")
_DECIMAL_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]*),[0-9]+")
_DOTS_AND_COMMA = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+,[0-9]+")

_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)? ?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(:([0-9]{2}(\.[0-9]{1,9})?))?")
_DURATION = re.compile(r"(-?[0-9]{1,9}) days?,? ([0-9]{1,2}):([0-9]{2}):([0-9]{2}(\.[0-9]{1,9})?)")


# ---------------------------------------------------------------- kinds of columns


def is_empty(cell: Any) -> bool:
    """Return whether a cell holds nothing, whatever the kind of its column."""
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, np.datetime64 | np.timedelta64):
        return bool(np.isnat(cell))
    return is_missing(cell) or (isinstance(cell, Decimal) and cell.is_nan())


def kind_of(cells: Sequence[Any], *, semicolons: bool = False) -> str:
    """Return the kind of a column, one of :data:`KINDS`.

    A column has the kind that all of its cells have; where they have several it is a category. Of
    the words ``NA``, ``NaN``, ``null`` and the like, a category says what is written; in a column
    of anything else they are missing values.

    Args:
        cells: of the column; those that hold nothing do not count.
        semicolons: whether the file separates columns by semicolons, as is usual where numbers have
            a decimal comma: then ``1,234`` is between one and two.
    """
    kinds = set(map(type, cells))
    if kinds and kinds <= {int, float}:
        return NUMBER_KINDS[0]
    found = {_look_of(cell) for cell in cells} - {"missing"}
    said = found - {"na"}
    if not said:
        return CATEGORY if found else NUMBER_KINDS[0]  # no cell at all: any kind would do
    if "truth" in said and said <= {"truth", "zero or one"}:
        return "truth"
    if len(said) == 1 and (kind := next(iter(said))) in ("date", "time", "duration"):
        return kind
    return _grouped_kind({"number" if look == "zero or one" else look for look in said}, semicolons)


def _grouped_kind(looks: set[str], semicolons: bool) -> str:
    """Return the kind of a column in which some numbers have commas or several dots."""
    if looks <= {"number", "point", "dot"}:
        return NUMBER_KINDS[0]
    english = looks <= {"number", "point", "dot", "comma of thousands", "commas"}
    european = looks <= {"number", "dot", "dots", "comma of thousands", "comma", "dots and comma"}
    if english and not (european and semicolons):
        return NUMBER_KINDS[1]
    if european:
        return NUMBER_KINDS[3 if looks & {"dot", "dots", "dots and comma"} else 2]
    return CATEGORY


def _look_of(cell: Any) -> str:
    """Return what a single cell looks like."""
    if isinstance(cell, str):
        return _look_of_text(_trimmed(cell))
    if is_empty(cell):
        return "missing"
    if isinstance(cell, bool | np.bool_):
        return "truth"
    if isinstance(cell, datetime.date | np.datetime64):
        return "date"
    if isinstance(cell, datetime.time):
        return "time"
    if isinstance(cell, datetime.timedelta | np.timedelta64):
        return "duration"
    number = _number(cell, NUMBER_KINDS[0])
    if number is None:
        return "word"
    return "zero or one" if number in (0, 1) else "number"


def _look_of_text(text: str) -> str:
    if not text:
        return "missing"
    lower = text.lower()
    if lower in _MISSING_WORDS:
        return "na"
    if lower in ("true", "false"):
        return "truth"
    if text in ("0", "1"):
        return "zero or one"
    if _PLAIN.fullmatch(text) or lower in _INFINITE:
        if _THOUSANDS_DOT.fullmatch(text):
            return "dot"
        return "number" if text.lstrip("+-").isdigit() else "point"
    for pattern, look in (
        (_THOUSANDS_DOTS, "dots"),
        (_THOUSANDS_COMMA, "comma of thousands"),
        (_THOUSANDS_COMMAS, "commas"),
        (_DECIMAL_COMMA, "comma"),
        (_DOTS_AND_COMMA, "dots and comma"),
    ):
        if pattern.fullmatch(text):
            return look
    for read, look in ((_date, "date"), (_time, "time"), (_duration, "duration")):
        if read(text) is not None:
            return look
    return "word"


# ---------------------------------------------------------------- cells


def read_cell(cell: Any, kind: str) -> float | str | None:
    """Return a cell as the number, or the name of the category, that it says in such a column.

    Args:
        cell: text, number, truth value, date, time or duration.
        kind: of the column.

    Returns:
        ``None`` if the value is missing.

    Raises:
        ValueError: if the cell does not fit the kind; the text says what it is not.
    """
    if is_empty(cell):
        return None
    if isinstance(cell, _NESTED):
        raise ValueError(
            f"{type(cell).__name__} is no number and no category. Give one value per cell"
        )
    if kind == CATEGORY:
        return _category(cell)
    if isinstance(cell, str) and _trimmed(cell).lower() in _MISSING_WORDS:
        return None
    number = _number(cell, kind) if kind in NUMBER_KINDS else _READERS[kind](cell)
    if number is None:
        raise ValueError(f"{_quoted(cell)} is not {noun_of(kind)}")
    return number


def noun_of(kind: str) -> str:
    """Return what a cell of a kind is, with its article: ``"a number"``."""
    if kind in NUMBER_KINDS[1:]:
        return f"a number written as {kind.removeprefix('number ')}"
    return {
        "truth": "a truth value (true or false)",
        "date": "a date (such as 2024-01-31)",
        "time": "a time of day (such as 08:30)",
        "duration": "a duration (such as 1 days 02:30:00)",
    }.get(kind, f"a {kind}")


def shown(value: float | str, kind: str | None) -> str:
    """Return a value that :func:`read_cell` returned as people write it."""
    if isinstance(value, str):
        return value
    if kind == "truth":
        return "true" if value else "false"
    if kind == "date" and abs(value) < 700_000:  # the year 9999 lies nearer
        start = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return _canonical_date(start + datetime.timedelta(days=value))
    if kind == "time" and 0 <= value < 24:
        minutes = round(value * 60)
        return f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{value:.12g}"  # so that 1.0 is shown as 1


def _trimmed(text: str) -> str:
    """Return a text without the blanks around it, and those that group thousands."""
    return text.strip().replace("\u00a0", "").replace("\u202f", "").replace("\u2212", "-")


def _quoted(cell: Any) -> str:
    text = repr(cell) if isinstance(cell, str | int | float) else repr(str(cell))
    return text if len(text) <= 60 else text[:56] + "...'"


def _number(cell: Any, kind: str) -> float | None:
    if not isinstance(cell, str):
        plain = isinstance(cell, int | float | Decimal | np.number | np.bool_)
        if not plain or isinstance(cell, np.complexfloating | np.timedelta64):
            return None
        try:
            return float(cell)
        except OverflowError:  # an integer of more than 308 digits
            return float("inf") if cell > 0 else float("-inf")
    text = _trimmed(cell)
    if kind == NUMBER_KINDS[1] and (
        _THOUSANDS_COMMA.fullmatch(text) or _THOUSANDS_COMMAS.fullmatch(text)
    ):
        text = text.replace(",", "")
    elif kind == NUMBER_KINDS[3] and (
        _THOUSANDS_DOT.fullmatch(text)
        or _THOUSANDS_DOTS.fullmatch(text)
        or _DOTS_AND_COMMA.fullmatch(text)
    ):
        text = text.replace(".", "").replace(",", ".")
    elif kind in NUMBER_KINDS[2:] and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    lower = text.lower()
    if lower in ("true", "false"):
        return float(lower == "true")
    return float(text) if _LENIENT.fullmatch(text) or lower in _INFINITE else None


def _truth(cell: Any) -> float | None:
    number = _number(cell, NUMBER_KINDS[0])
    return number if number in (0, 1) else None


def _date(cell: Any) -> float | None:
    """Return days since 1970."""
    moment = _moment(cell)
    return None if moment is None else moment.timestamp() / _SECONDS_OF_DAY


def _moment(cell: Any) -> datetime.datetime | None:
    """Return a date as a moment in UTC; a date without a zone is taken to be in UTC."""
    if isinstance(cell, np.datetime64):
        cell = cell.astype("datetime64[us]").item()
    if isinstance(cell, str):
        text = cell.strip()
        if not _DATE.fullmatch(text):
            return None
        try:
            cell = datetime.datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
        except ValueError:  # the thirtieth of February
            return None
    if not isinstance(cell, datetime.date):
        return None
    if not isinstance(cell, datetime.datetime):
        return datetime.datetime(cell.year, cell.month, cell.day, tzinfo=datetime.UTC)
    if cell.tzinfo is None:
        return cell.replace(tzinfo=datetime.UTC)
    try:
        return cell.astimezone(datetime.UTC)
    except OverflowError:  # the first or last day of all, in another zone
        return None


def _time(cell: Any) -> float | None:
    """Return hours since midnight."""
    if isinstance(cell, datetime.time):
        seconds = cell.second + cell.microsecond / 1e6
        return cell.hour + (cell.minute * 60 + seconds) / _SECONDS_OF_HOUR
    found = _TIME.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2]), float(found[4] or 0)
    if hour > 23 or minute > 59 or second >= 60:
        return None
    return hour + (minute * 60 + second) / _SECONDS_OF_HOUR


def _duration(cell: Any) -> float | None:
    """Return days."""
    if isinstance(cell, np.timedelta64):
        cell = cell.astype("timedelta64[us]").item()
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds() / _SECONDS_OF_DAY
    found = _DURATION.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if found is None:
        return None
    seconds = int(found[2]) * _SECONDS_OF_HOUR + int(found[3]) * 60 + float(found[4])
    return int(found[1]) + seconds / _SECONDS_OF_DAY


_READERS: dict[str, Callable[[Any], float | None]] = {
    "truth": _truth,
    "date": _date,
    "time": _time,
    "duration": _duration,
}


def _category(cell: Any) -> str:
    """Return the one name of a category, however it is spelled: ``1``, ``1.0`` and ``1e0``."""
    if isinstance(cell, bytes | bytearray | memoryview):
        cell = bytes(cell).decode("utf-8", "backslashreplace")
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell)).lower()
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in ("true", "false"):
            return text.lower()
        if _PLAIN.fullmatch(text):
            return _canonical_number(text)
    elif isinstance(cell, np.floating):
        return _canonical_number(str(cell))  # float32: 0.1 and not 0.10000000149
    elif isinstance(cell, int | float | Decimal | np.integer):
        return _canonical_number(str(cell))
    else:
        text = str(cell)
    moment = _moment(cell)
    if moment is not None:
        return _canonical_date(moment)
    hours = _time(cell)
    if hours is not None:
        seconds = round(hours * _SECONDS_OF_HOUR)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text


def _canonical_number(text: str) -> str:
    """Return a number without needless zeros; every digit of a long integer stays."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not number.is_finite():
        return text
    if not number:
        return "0"
    if abs(number.adjusted()) > 30:  # written out, 1e999999 would fill the memory
        return str(number).upper()
    whole = f"{number:f}"
    return (whole.rstrip("0").rstrip(".") if "." in whole else whole).removeprefix("+")


def _canonical_date(moment: datetime.datetime) -> str:
    plain = moment.replace(tzinfo=None)
    midnight = plain.time() == datetime.time()
    return plain.date().isoformat() if midnight else plain.isoformat(sep=" ")
