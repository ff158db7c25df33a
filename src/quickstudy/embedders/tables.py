"""Tables: numbers are standardised on the support set, each category becomes a column."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quickstudy.core import ConfigError, DataError
from quickstudy.core.values import is_frame, is_missing
from quickstudy.embedders.base import Embedder, Item, Vectors
from quickstudy.embedders.inputs import content_key
from quickstudy.embedders.networks import hash_of

__all__ = ["Column", "TableEmbedder", "TableRow"]

Numbers = npt.NDArray[np.float64]

_VERSION = 1  # count up when the way a row is embedded changes
_MOST_COLUMNS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row as it was given.

    Args:
        columns: names of the columns; ``x0``, ``x1``, ... if the table has none.
        values: for each column a number, or a category as text; float64 ``[F]`` if all are numbers.
        named: whether the names are the table's own.

    Example::

        from quickstudy.embedders.tables import TableRow
        row = TableRow(("weight", "colour"), (4.5, "grey"), named=True)
        print(dict(zip(row.columns, row.values)))
    """

    columns: tuple[str, ...]
    values: tuple[float | str, ...] | Numbers
    named: bool


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is embedded, as fitted to the support set.

    Args:
        name: of the column.
        mean: of the support's numbers.
        scale: their standard deviation; 1 if all are equal.
        categories: of the support, sorted; ``None`` = the column is numeric.

    Example::

        from quickstudy.embedders.tables import Column, TableEmbedder
        weight, colour = Column("weight", mean=4.0, scale=2.0), Column("hue", categories=("g", "r"))
        embedder = TableEmbedder([weight, colour])
        z = embedder.embed(embedder.read([[6.0, "r"]]))  # [1, 3]
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] | None = None


class TableEmbedder(Embedder):
    """Embeds rows of numbers and categories, standardised on the support set by :meth:`fit`.

    A number ``x`` becomes ``(x - mean) / standard deviation`` of the support. A category becomes 1
    in a column of its own and 0 in those of other categories: so two different categories have the
    squared distance 2, which is also the mean one of two random standardised numbers. A category
    that the support does not have is 0 in all columns.

    Of numpy, a numeric array has numeric columns; in an array of objects a column is numeric if all
    its values are. Of pandas, columns of numbers and truth values are numeric, dates are numbers of
    days since 1970, all other columns are categorical.

    Args:
        columns: as fitted to a support set; ``None`` = not fitted yet.
        named: whether the columns' names are the table's own.

    Example::

        embedder = get_embedder("table")
        items = embedder.read([[1.0, "grey"], [3.0, "red"], [5.0, "red"]])
        embedder = embedder.fit(items)
        z = embedder.embed(items)  # [3, 3]
    """

    modality = "table"
    name = "table"
    fitted = True

    def __init__(self, columns: Sequence[Column] | None = None, *, named: bool = False) -> None:
        super().__init__(None)  # no cache: computing is faster than looking up
        self._columns = None if columns is None else tuple(columns)
        self._named = named

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the support set.

        Raises:
            ConfigError: before :meth:`fit`.
        """
        if self._columns is None:
            raise ConfigError("the table embedder has no columns yet. Call fit(items) first.")
        return self._columns

    @property
    def fingerprint(self) -> str:
        """sha256 over means, scales, categories and version."""
        known = None if self._columns is None else [asdict(column) for column in self._columns]
        return hash_of({"version": _VERSION, "kind": "table", "columns": known})

    @property
    def dim(self) -> int:
        """One number for each numeric column, and one for each category."""
        return sum(1 if c.categories is None else len(c.categories) for c in self.columns)

    def read(self, X: Any) -> list[Item]:
        """Return the rows of a table as items.

        Args:
            X: array ``[N, F]``, list of rows, DataFrame or ``pyarrow.Table``. Columns of the last
                two are found by name, those of the others by position.

        Raises:
            DataError: if a value is missing or infinite (the message names row and column), or the
                columns are not those of the support set.
        """
        names, cells, labels = _cells(X)
        named = is_frame(X) or isinstance(X, pa.Table)
        order = self._order(names, named)
        used = names if self._columns is None else tuple(column.name for column in self._columns)
        if isinstance(cells, np.ndarray):
            _check_finite(cells, names, labels)
            cells = np.ascontiguousarray(cells[:, order])
        else:
            _check_missing([[cell[i] for i in order] for cell in cells], used, labels)
        about = json.dumps(used).encode()
        items = []
        for row, (cell, label) in enumerate(zip(cells, labels, strict=True)):
            if isinstance(cell, np.ndarray):
                key = content_key("numbers", about, cell.tobytes())
                items.append(Item(TableRow(used, cell, named), key, label))
                continue
            values = tuple(_value(cell[i], _where(row, label), names[i]) for i in order)
            key = content_key("table", about, json.dumps(values).encode())
            items.append(Item(TableRow(used, values, named), key, label))
        return items

    def _order(self, names: Sequence[str], named: bool) -> list[int]:
        """Return the positions in a new table of the support set's columns."""
        if self._columns is None:
            return list(range(len(names)))
        by_name = named and self._named
        missing = [c.name for c in self._columns if c.name not in names] if by_name else []
        # a table with names may have further columns: a group, a label, a note
        if len(names) != len(self._columns) and (missing or not by_name):
            raise DataError(
                f"X has {len(names)} features, but the table embedder is expecting "
                f"{len(self._columns)} features as input. Give the columns of the support set."
            )
        if not by_name:
            return list(range(len(names)))
        if missing:
            shown = ", ".join(map(repr, missing[:_MOST_COLUMNS_SHOWN]))
            raise DataError(
                f"the table lacks the column(s) {shown} of the support set. Give the same columns."
            )
        return [list(names).index(column.name) for column in self._columns]

    def fit(self, items: Sequence[Item]) -> Self:
        """Return the embedder of this support set."""
        if not items:
            raise DataError("got no rows to fit the table embedder on. Give at least one.")
        first: TableRow = items[0].value
        other = next((i for i in items if len(i.value.values) != len(first.values)), None)
        if other is not None:
            raise DataError(
                f"X has {len(other.value.values)} features, but the table embedder is expecting "
                f"{len(first.values)} features as input. Give the columns of the support set."
            )
        rows = [item.value.values for item in items]
        columns = []
        if all(isinstance(row, np.ndarray) for row in rows):
            table = np.stack(rows)
            columns = [_numeric(name, table[:, i]) for i, name in enumerate(first.columns)]
        else:
            for i, name in enumerate(first.columns):
                values = [row[i] for row in rows]
                if all(isinstance(value, float) for value in values):
                    columns.append(_numeric(name, np.asarray(values, dtype=np.float64)))
                else:
                    categories = tuple(sorted({_text(value) for value in values}))
                    columns.append(Column(name, categories=categories))
        return type(self)(columns, named=first.named)

    def compute(self, values: Sequence[Any], names: Sequence[str]) -> Vectors:
        """Return the embeddings ``[N, D]`` of rows."""
        columns, rows = self.columns, [row.values for row in values]
        if all(isinstance(row, np.ndarray) for row in rows) and not any(
            column.categories for column in columns
        ):
            mean, scale = (np.array([getattr(c, n) for c in columns]) for n in ("mean", "scale"))
            z = (np.stack(rows) - mean) / scale
        else:
            parts = [_column_of(c, [r[i] for r in rows], names) for i, c in enumerate(columns)]
            z = np.concatenate(parts, axis=1)
        # an extreme value must not become infinite in float32, nor its square
        return np.asarray(np.clip(z, -1e18, 1e18), dtype=np.float32)

    def config(self) -> dict[str, Any]:
        """Return JSON from which ``get_embedder`` makes this embedder again."""
        known = None if self._columns is None else [asdict(column) for column in self._columns]
        return {
            "encoder": "table",
            "columns": known,
            "named": self._named,
            "fingerprint": self.fingerprint,
        }

    def preview(self, item: Item) -> bytes | str | None:
        """Return the first columns as text."""
        if item.preview is not None or item.value is None:
            return item.preview
        row: TableRow = item.value
        pairs = [f"{c}={_text(v)}" for c, v in zip(row.columns, row.values, strict=True)]
        most = _MOST_COLUMNS_SHOWN
        return ", ".join(pairs[:most]) + (", ..." if len(pairs) > most else "")


def table_from_config(config: dict[str, Any]) -> TableEmbedder:
    """Return the embedder of a configuration written by :meth:`TableEmbedder.config`.

    Raises:
        DataError: if it is damaged.
    """
    try:
        known = config.get("columns")
        if known is None:
            return TableEmbedder()
        columns = [
            Column(
                str(c["name"]),
                float(c["mean"]),
                float(c["scale"]),
                None if c["categories"] is None else tuple(map(str, c["categories"])),
            )
            for c in known
        ]
        return TableEmbedder(columns, named=bool(config.get("named")))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the columns of the table are damaged ({error}). Fit again.") from error


def _numeric(name: str, numbers: Numbers) -> Column:
    # longdouble: the sum of squares of large numbers must not overflow
    scale = float(numbers.astype(np.longdouble).std())
    # a constant column may have a tiny standard deviation by rounding: do not divide by it
    flat = not scale > 1e-12 * float(np.abs(numbers).max())
    return Column(name, float(numbers.mean()), 1.0 if flat else scale)


def _column_of(column: Column, cells: Sequence[float | str], names: Sequence[str]) -> Numbers:
    """Return the embedded column ``[N, 1]``, or ``[N, categories]``."""
    if column.categories is not None:
        texts = [_text(cell) for cell in cells]
        return np.array([[float(t == c) for c in column.categories] for t in texts])
    for name, cell in zip(names, cells, strict=True):
        if isinstance(cell, str):
            raise DataError(
                f"{name}, column {column.name!r}: {cell!r} is not a number, but the support set "
                "has numbers in this column. Correct it."
            )
    return (np.asarray(cells, dtype=np.float64)[:, None] - column.mean) / column.scale


def _cells(X: Any) -> tuple[tuple[str, ...], Numbers | list[list[Any]], list[str | None]]:
    """Return the names of the columns, the rows, and the names of the rows."""
    rows: Numbers | list[list[Any]]
    if is_frame(X):
        names, rows = _cells_of_frame(X)
        plain = type(X.index).__name__ == "RangeIndex"
        labels = [None if plain else str(label) for label in X.index]
    elif isinstance(X, pa.Table):
        names, rows = _cells_of_columns({n: X.column(n).to_pylist() for n in X.column_names})
        labels = [None] * X.num_rows
    else:
        try:
            array = np.asarray(X)
            if array.dtype.kind in "US":  # a mixed list: numpy has turned its numbers into text
                array = np.asarray(X, dtype=object)
        except ValueError as error:
            raise DataError("the rows have different numbers of columns. Give a table.") from error
        if array.ndim != 2:
            raise DataError(
                f"a table has shape [N, F]; got {list(array.shape)}. Expected 2D array, got "
                f"{array.ndim}D array instead. Reshape your data: a single row is X[None]."
            )
        if array.dtype.kind == "c":
            raise DataError("Complex data not supported. Give real and imaginary parts as columns.")
        rows = array.astype(np.float64) if array.dtype.kind in "biuf" else array.tolist()
        names = tuple(f"x{i}" for i in range(array.shape[1]))
        labels = [None] * len(rows)
    if not len(rows):
        raise DataError(f"found array with 0 sample(s) and {len(names)} columns. Give a row.")
    if not names:
        raise DataError(f"0 feature(s) (shape=({len(rows)}, 0)) while a minimum of 1 is required.")
    return names, rows, labels


def _cells_of_columns(
    columns: dict[str, list[Any]],
) -> tuple[tuple[str, ...], Numbers | list[list[Any]]]:
    """Return names and rows of columns by name; an array if all are numeric, NaN = missing."""
    columns = {name: [_days(v) for v in values] for name, values in columns.items()}
    numeric = [
        all(is_missing(v) or isinstance(v, int | float) for v in values)
        for values in columns.values()
    ]
    if all(numeric):
        cells = [
            [np.nan if is_missing(v) else float(v) for v in values] for values in columns.values()
        ]
        return tuple(columns), np.array(cells, dtype=np.float64).T
    return tuple(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _cells_of_frame(X: Any) -> tuple[tuple[str, ...], Numbers | list[list[Any]]]:
    """Return names and rows of a DataFrame; an array if all columns are numeric, NaN = missing."""
    import pandas as pd

    names = tuple(str(name) for name in X.columns)
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two columns are called {double!r}. Rename one.")
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in X.dtypes]
    if all(numeric):
        return names, X.to_numpy(dtype=np.float64, na_value=np.nan)
    columns = [[_days(cell) for cell in X.iloc[:, i].tolist()] for i in range(len(names))]
    dated = [pd.api.types.is_datetime64_any_dtype(dtype) for dtype in X.dtypes]
    columns = [
        column if number or date else [cell if is_missing(cell) else str(cell) for cell in column]
        for column, number, date in zip(columns, numeric, dated, strict=True)
    ]
    return names, [list(row) for row in zip(*columns, strict=True)]


def _days(cell: Any) -> Any:
    """Return a date as days since 1970, everything else as it is.

    As a category, a date would be of no use: hardly another row has the same one.
    """
    if isinstance(cell, datetime.date) and not is_missing(cell):
        moment = cell if isinstance(cell, datetime.datetime) else None
        utc = datetime.UTC
        if moment is None:
            moment = datetime.datetime(cell.year, cell.month, cell.day, tzinfo=utc)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=utc)
        return moment.timestamp() / 86400
    return cell


def _where(row: int, label: str | None) -> str:
    """Return the name of a row in errors."""
    return f"row {row}" if label is None else f"row {row} ({label})"


def _check_missing(
    cells: Sequence[Sequence[Any]], names: Sequence[str], labels: Sequence[str | None]
) -> None:
    """Refuse missing values, naming the place of the first and the number of all."""
    bad = [(r, c) for r, row in enumerate(cells) for c, v in enumerate(row) if is_missing(v)]
    if not bad:
        return
    row, column = bad[0]
    more = ""
    if len(bad) > 1:
        columns = len({c for _, c in bad})
        more = f" {len(bad)} are missing in all, in {columns} column{'s' * (columns > 1)}."
    raise DataError(
        f"{_where(row, labels[row])}, column {names[column]!r}: the value is missing (NaN).{more} "
        "Fill it in (an imputer in a Pipeline does) or leave the row out."
    )


def _check_finite(table: Numbers, names: Sequence[str], labels: Sequence[str | None]) -> None:
    if np.isnan(table).any():
        _check_missing(table.tolist(), names, labels)
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        _value(float(table[row, column]), _where(row, labels[row]), names[column])


def _value(cell: Any, where: str, column: str) -> float | str:
    """Return a cell that is not missing as a number, or as the name of a category."""
    if isinstance(cell, bool | int | float | np.number | np.bool_):
        number = float(cell)
        if not np.isfinite(number):
            raise DataError(
                f"{where}, column {column!r}: the value is infinite (inf). Correct it or leave the "
                "row out."
            )
        return number
    if isinstance(cell, list | tuple | dict | np.ndarray):
        raise DataError(
            f"{where}, column {column!r}: {type(cell).__name__} is no number and no category. Give "
            "one value per cell."
        )
    return str(cell)


def _text(value: float | str) -> str:
    """Return a category's name; 12 digits of a number, so that 1.0 and 1 are one category."""
    return f"{value:.12g}" if isinstance(value, float) else value
