"""Tables of every form as columns of cells: arrays, lists, records, data frames, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quickstudy.core import DataError
from quickstudy.core.values import is_frame
from quickstudy.tables.arrow import arrow_columns
from quickstudy.tables.cells import CATEGORY, kind_of
from quickstudy.tables.read import Table, read_table

__all__ = ["Cells", "Grid", "has_names", "read_grid"]

Numbers = npt.NDArray[np.float64]
Cells = npt.NDArray[Any] | list[Any]
"""The cells of a column: an array if it is one of numbers or truth values, else a list."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a table.

    Args:
        names: of the columns; ``x0``, ``x1``, ... if the table has none.
        columns: their cells ``[N]`` each.
        rows: the name of each row, or ``None`` where rows have no names but numbers.
        named: whether the names are the table's own.
        categories: columns that the table itself calls categorical.
        semicolons: whether it is a file whose columns are separated by semicolons.
        of_file: whether the names of the rows say which file and line they are from.

    Example::

        from quickstudy.embedders.grids import read_grid
        grid = read_grid([{"size": 1.5, "colour": "red"}, {"size": 2, "colour": "blue"}])
        print(grid.names, grid.columns, grid.kind(0), grid.kind(1))
    """

    names: tuple[str, ...]
    columns: Sequence[Cells]
    rows: Sequence[str | None]
    named: bool
    categories: frozenset[str] = frozenset()
    semicolons: bool = False
    of_file: bool = False

    def kind(self, column: int) -> str:
        """Return the kind of a column by its cells, see :func:`quickstudy.tables.cells.kind_of`."""
        cells = self.columns[column]
        if self.names[column] in self.categories:
            return CATEGORY
        if isinstance(cells, np.ndarray):
            return "truth" if cells.dtype.kind == "b" else "number"
        return kind_of(cells, semicolons=self.semicolons)

    def where(self, row: int) -> str:
        """Return the name of a row in errors."""
        name = self.rows[row]
        if name is None:
            return f"row {row}"
        return name if self.of_file else f"row {row} ({name})"


def has_names(X: Any) -> bool:
    """Return whether the columns of a table have names, by which they are found."""
    return (
        isinstance(X, Table | Mapping)
        or is_frame(X)
        or hasattr(X, "__arrow_c_stream__")
        or isinstance(X, pa.RecordBatch)
        or (isinstance(X, list | tuple) and _records(X))
    )


def read_grid(X: Any) -> Grid:
    """Return the cells of a table.

    Args:
        X: array ``[N, F]``, list of rows, list of records, columns by name, DataFrame,
            ``pyarrow.Table``, anything that Arrow reads, or :class:`Table`.

    Raises:
        DataError: if it is something else, has no rows or columns, or two of one name.
    """
    if isinstance(X, Table):
        grid = _of_table(X, file=True)
    elif is_frame(X):
        grid = _of_frame(X)
    elif isinstance(X, pa.Table | pa.RecordBatch) or hasattr(X, "__arrow_c_stream__"):
        grid = _of_arrow(X if isinstance(X, pa.RecordBatch) else _arrow_table(X))
    elif isinstance(X, Mapping) or (isinstance(X, list | tuple) and _records(X)):
        grid = _of_table(read_table(X), file=False)
    else:
        grid = _of_array(X)
    if len(set(grid.names)) < len(grid.names):
        double = next(name for name in grid.names if grid.names.count(name) > 1)
        raise DataError(f"two columns are called {double!r}. Rename one.")
    if not len(grid.rows):
        raise DataError(f"found array with 0 sample(s) and {len(grid.names)} columns. Give a row.")
    if not grid.names:
        shape = (len(grid.rows), 0)
        raise DataError(f"0 feature(s) (shape={shape}) while a minimum of 1 is required.")
    return grid


def _records(rows: Sequence[Any]) -> bool:
    """Return whether rows are records; a mixture is refused by its reader."""
    return bool(rows) and isinstance(rows[0], Mapping)


def _of_table(table: Table, *, file: bool) -> Grid:
    return Grid(
        table.names,
        list(table.columns.values()),
        list(table.rows) if file else [None] * len(table),
        True,
        table.categories,
        table.semicolons,
        file,
    )


def _of_arrow(X: pa.Table | pa.RecordBatch) -> Grid:
    table = pa.Table.from_batches([X]) if isinstance(X, pa.RecordBatch) else X
    names, columns, categories = arrow_columns(table)
    return Grid(tuple(names), columns, [None] * table.num_rows, True, frozenset(categories))


def _arrow_table(X: Any) -> pa.Table:
    try:
        return pa.table(X)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{type(X).__name__} cannot be read as a table ({error}). Give columns of one length."
        ) from error


def _of_frame(X: Any) -> Grid:
    """Return the cells of a pandas DataFrame."""
    import pandas as pd

    names = tuple(str(name) for name in X.columns)
    columns: list[Cells] = []
    chosen = []
    for i, (name, dtype) in enumerate(zip(names, X.dtypes, strict=True)):
        series = X.iloc[:, i]
        if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
            columns.append(series.to_numpy())
            continue
        if dtype.kind == "c":
            raise DataError("Complex data not supported. Give real and imaginary parts as columns.")
        if isinstance(dtype, pd.SparseDtype):
            series = series.sparse.to_dense()
        if isinstance(dtype, pd.CategoricalDtype):
            chosen.append(name)
        columns.append(series.tolist())
    plain = type(X.index).__name__ == "RangeIndex"
    rows = [None if plain else str(label) for label in X.index]
    return Grid(names, columns, rows, True, frozenset(chosen))


def _of_array(X: Any) -> Grid:
    """Return the cells of an array or a list of rows."""
    try:
        array = np.asarray(X)
        if array.dtype.kind in "USMm":  # numpy has turned the numbers of a mixed list into text
            array = np.asarray(X, dtype=object)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise DataError("the rows have different numbers of columns. Give a table.") from error
    if array.ndim != 2:
        raise DataError(
            f"a table has shape [N, F]; got {list(array.shape)}. Expected 2D array, got "
            f"{array.ndim}D array instead. Reshape your data: a single row is X[None]."
        )
    if array.dtype.kind not in "biufO":
        raise DataError("Complex data not supported. Give real and imaginary parts as columns.")
    columns: list[Cells] = [
        column.tolist() if array.dtype.kind == "O" else column for column in array.T
    ]
    names = tuple(f"x{i}" for i in range(array.shape[1]))
    return Grid(names, columns, [None] * array.shape[0], False)
