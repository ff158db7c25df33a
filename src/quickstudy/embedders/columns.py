"""Reads the cells of one column by its kind; what cannot be read is told by row and column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.core import DataError
from quickstudy.embedders.grids import Cells, Grid
from quickstudy.tables.cells import CATEGORY, noun_of, read_cell

__all__ = ["ReadColumn", "category_name", "read_column", "refuse_faults"]

Numbers = npt.NDArray[np.float64]

_INFINITE = "the value is infinite (inf). Correct it or leave the row out."
_NUMBERS_OF_OLD_FILES = ("number", "date")


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """The cells of a column.

    Args:
        values: numbers ``[N]``, NaN where there is none; or names of categories.
        missing: rows without a value.
        faults: rows whose value cannot be used, and what is wrong with it.
    """

    values: Numbers | list[str]
    missing: list[int] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


def read_column(
    cells: Cells, kind: str | None, *, categories: Sequence[str] | None = None, fitted: bool = False
) -> ReadColumn:
    """Return the cells of a column, read by its kind.

    Args:
        cells: as they were given.
        kind: of the column; ``None`` = one of the first version's files, which did not tell.
        categories: that the support set has in such a column, if they are categories.
        fitted: whether the kind is that of a support set, for the words of a fault.
    """
    if isinstance(cells, np.ndarray) and kind in (None, "number") and categories is None:
        return _array(cells.astype(np.float64))
    if isinstance(cells, np.ndarray):
        # the text of a float32 is short: 0.1, and not 0.10000000149
        short = cells.dtype.kind == "f" and cells.dtype.itemsize < 8
        cells = list(cells) if short else cells.tolist()
    if kind is not None:
        return _each(cells, lambda cell: read_cell(cell, kind), kind, fitted)
    if categories is None:
        return _each(cells, _number_or_date, "number", fitted)
    known = {category_name(name): name for name in categories}
    return _each(cells, lambda cell: _old_category(cell, categories, known), CATEGORY, fitted)


def _array(numbers: Numbers) -> ReadColumn:
    missing = np.flatnonzero(np.isnan(numbers)).tolist()
    infinite = np.flatnonzero(np.isinf(numbers)).tolist()
    return ReadColumn(numbers, missing, [(row, _INFINITE) for row in infinite])


def _each(
    cells: Sequence[Any], read: Callable[[Any], float | str | None], kind: str, fitted: bool
) -> ReadColumn:
    missing: list[int] = []
    faults: list[tuple[int, str]] = []
    values: list[Any] = []
    for row, cell in enumerate(cells):
        value: float | str | None = None
        try:
            value = read(cell)
            if value is None:
                missing.append(row)
        except ValueError as error:
            plural = {CATEGORY: "categories"}.get(kind, f"{noun_of(kind).split(' ', 1)[1]}")
            because = f", but the support set has such values ({plural}) in this column"
            if kind == "number":
                because = ", but the support set has numbers in this column"
            nested = f"{error}".startswith(type(cell).__name__)
            faults.append((row, f"{error}." if nested or not fitted else f"{error}{because}."))
        if isinstance(value, float) and np.isinf(value):
            faults.append((row, _INFINITE))
        values.append(value)
    if kind == CATEGORY:
        return ReadColumn(["" if value is None else value for value in values], missing, faults)
    numbers = [np.nan if value is None else value for value in values]
    return ReadColumn(np.array(numbers, dtype=np.float64), missing, faults)


def refuse_faults(columns: Sequence[ReadColumn], names: Sequence[str], grid: Grid) -> None:
    """Refuse values that are missing or cannot be used; the first row is blamed.

    Args:
        columns: as they were read.
        names: of the columns.
        grid: where they are from, for the names of the rows.

    Raises:
        DataError: if there are any; it tells how many are missing.
    """
    missing = [(row, i) for i, column in enumerate(columns) for row in column.missing]
    faults = [(row, i, what) for i, column in enumerate(columns) for row, what in column.faults]
    if faults and (not missing or min(faults)[:2] < min(missing)):
        row, i, what = min(faults)
        raise DataError(f"{grid.where(row)}, column {names[i]!r}: {what}")
    if not missing:
        return
    row, i = min(missing)
    more = ""
    if len(missing) > 1:
        wide = len({i for _, i in missing})
        more = f" {len(missing):,} are missing in all, in {wide:,} column{'s' * (wide > 1)}."
    raise DataError(
        f"{grid.where(row)}, column {names[i]!r}: the value is missing (NaN).{more} Fill it in (an "
        "imputer in a Pipeline does) or leave the row out."
    )


def category_name(cell: Any) -> str:
    """Return the one name of a category, however it is spelled; of nothing the empty text."""
    return str(read_cell(cell, CATEGORY) or "")


def _number_or_date(cell: Any) -> float | str | None:
    """Return a number, a truth value or a date as the first version's files mean it."""
    for kind in _NUMBERS_OF_OLD_FILES:
        try:
            return read_cell(cell, kind)
        except ValueError:
            continue
    return read_cell(cell, "number")


def _old_category(cell: Any, categories: Sequence[str], known: dict[str, str]) -> str | None:
    """Return a category by the name that the first version gave it.

    There texts were categories as they are, and numbers by 12 digits. What is spelled otherwise is
    found by the name of today.
    """
    name = category_name(cell)
    if not name:
        return None
    old = cell if isinstance(cell, str) else name
    if isinstance(cell, int | float | np.number):
        old = f"{float(cell):.12g}"
    return str(old) if old in categories else known.get(name, str(old))
