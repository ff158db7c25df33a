"""Columns of Arrow tables as plain cells: numbers, texts, dates, bytes; never an error of Arrow."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["arrow_cells", "arrow_columns"]


def arrow_columns(table: pa.Table) -> tuple[list[str], list[list[Any]], list[str]]:
    """Return the names of a table's columns, their cells, and the names of the categorical ones."""
    names = [str(name) for name in table.column_names]
    kinds = [pa.types.is_dictionary(field.type) for field in table.schema]
    columns = [arrow_cells(table.column(i)) for i in range(table.num_columns)]
    return names, columns, [name for name, kind in zip(names, kinds, strict=True) if kind]


def arrow_cells(column: pa.ChunkedArray) -> list[Any]:
    """Return the cells of a column; of moments in a zone, those in UTC.

    What Python has no type for (nanoseconds, a year 10,000) is rounded, or becomes text.
    """
    for wanted in [*_simpler(column.type), column.type, pa.string()]:
        try:
            return list(column.cast(wanted, safe=False).to_pylist())
        except (pa.ArrowException, ValueError, OverflowError, TypeError):
            continue  # the next type, down to plain text
    return [f"a value of type {column.type}" if valid else None for valid in column.is_valid()]


def _simpler(kind: pa.DataType) -> list[pa.DataType]:
    """Return the types that hold the same and are read without surprises, best first."""
    if pa.types.is_timestamp(kind):
        return [pa.timestamp("us")]
    if pa.types.is_duration(kind):
        return [pa.duration("us")]
    if pa.types.is_time(kind):
        return [pa.time64("us")]
    if pa.types.is_date(kind):
        return [pa.date32()]
    if pa.types.is_dictionary(kind):
        return [kind.value_type]
    return []
