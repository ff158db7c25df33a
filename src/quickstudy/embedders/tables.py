"""Tables: numbers are standardised on the support set, each category becomes a column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from quickstudy.core import ConfigError, DataError
from quickstudy.embedders.base import Embedder, Item, Vectors
from quickstudy.embedders.columns import read_column, refuse_faults
from quickstudy.embedders.grids import Grid, read_grid
from quickstudy.embedders.inputs import content_key
from quickstudy.embedders.networks import hash_of
from quickstudy.tables.cells import CATEGORY, KINDS, shown

__all__ = ["Column", "TableEmbedder", "TableRow"]

Numbers = npt.NDArray[np.float64]

_VERSION = 1  # count up when the way a row is embedded changes
_MOST_COLUMNS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row, each cell read by the kind of its column.

    Args:
        columns: names of the columns; ``x0``, ``x1``, ... if the table has none.
        values: for each column a number, or a category as text; float64 ``[F]`` if all are numbers.
        named: whether the names are the table's own.
        kinds: of the columns, see :data:`quickstudy.tables.cells.KINDS`; empty = not known, as in
            task files of the first version.

    Example::

        from quickstudy.embedders.tables import TableRow
        row = TableRow(("weight", "colour"), (4.5, "grey"), named=True)
        print(dict(zip(row.columns, row.values)))
    """

    columns: tuple[str, ...]
    values: tuple[float | str, ...] | Numbers
    named: bool
    kinds: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """How a column is read and embedded, as fitted to the support set.

    Args:
        name: of the column.
        mean: of the support's numbers.
        scale: their standard deviation; 1 if all are equal.
        categories: of the support, sorted; ``None`` = the column is numeric.
        kind: how its cells are read, one of :data:`quickstudy.tables.cells.KINDS`; ``None`` = not
            known, as in task files of the first version.

    Raises:
        ConfigError: if there is no such kind, or it does not go with the categories.

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
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.kind is None:
            return
        if self.kind not in KINDS or (self.kind == CATEGORY) != (self.categories is not None):
            raise ConfigError(
                f"column {self.name!r}: the kind {self.kind!r} does not go with "
                f"{'no ' if self.categories is None else ''}categories, or there is none such. "
                f"Kinds: {', '.join(KINDS)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; no kind where none is known, as the first version wrote it."""
        found = asdict(self)
        return found if self.kind is not None else {k: v for k, v in found.items() if k != "kind"}


class TableEmbedder(Embedder):
    """Embeds rows of numbers and categories, standardised on the support set by :meth:`fit`.

    A number ``x`` becomes ``(x - mean) / standard deviation`` of the support. A category becomes 1
    in a column of its own and 0 in those of other categories: so two different categories have the
    squared distance 2, which is also the mean one of two random standardised numbers. A category
    that the support does not have is 0 in all columns.

    Dates are numbers of days since 1970, times of day numbers of hours, truth values 1 and 0. The
    kind of each column is found once, from the first rows that are read, whatever form they have:
    a text ``"2024-01-31"`` is a date as well. Later cells are read by the kind of their column.
    Columns of pandas with the dtype ``category`` are categories, also of numbers.

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
    def named(self) -> bool:
        """Whether the columns' names are the table's own."""
        return self._named

    @property
    def fingerprint(self) -> str:
        """sha256 over means, scales, categories, kinds and version."""
        known = None if self._columns is None else [column.to_dict() for column in self._columns]
        return hash_of({"version": _VERSION, "kind": "table", "columns": known})

    @property
    def dim(self) -> int:
        """One number for each numeric column, and one for each category."""
        return sum(1 if c.categories is None else len(c.categories) for c in self.columns)

    def read(self, X: Any) -> list[Item]:
        """Return the rows of a table as items.

        Args:
            X: see :func:`quickstudy.embedders.grids.read_grid`. Columns of arrays and lists of rows
                are found by position, those of all others by name; further columns are left out.

        Raises:
            DataError: if a value is missing, infinite or does not fit its column (the message names
                row and column), or the columns are not those of the support set.
        """
        grid = read_grid(X)
        order = self._order(grid)
        if self._columns is None:
            used = grid.names
            kinds: tuple[str | None, ...] = tuple(grid.kind(i) for i in order)
            read = [read_column(grid.columns[i], kinds[i]) for i in order]
        else:
            used = tuple(column.name for column in self._columns)
            kinds = tuple(column.kind for column in self._columns)
            read = [
                read_column(grid.columns[i], c.kind, categories=c.categories, fitted=True)
                for i, c in zip(order, self._columns, strict=True)
            ]
        refuse_faults(read, used, grid)
        about = json.dumps(used).encode()
        cells: Numbers | list[tuple[float | str, ...]]
        if all(isinstance(column.values, np.ndarray) for column in read):
            cells = np.stack([column.values for column in read], axis=1)
        else:
            cells = list(zip(*(list(map(_plain, column.values)) for column in read), strict=True))
        items = []
        for value, name in zip(cells, grid.rows, strict=True):
            if isinstance(value, np.ndarray):
                key = content_key("numbers", about, value.tobytes())
            else:
                key = content_key("table", about, json.dumps(value).encode())
            items.append(Item(TableRow(used, value, grid.named, kinds), key, name))
        return items

    def _order(self, grid: Grid) -> list[int]:
        """Return the positions in a new table of the support set's columns."""
        names = grid.names
        if self._columns is None:
            return list(range(len(names)))
        by_name = grid.named and self._named
        if not by_name:
            if len(names) != len(self._columns):
                raise DataError(
                    f"X has {len(names)} features, but the table embedder is expecting "
                    f"{len(self._columns)} features as input. Give the columns of the support set."
                )
            return list(range(len(names)))
        # a table with names may have further columns: a group, a label, a note
        if missing := [column.name for column in self._columns if column.name not in names]:
            shown = ", ".join(map(repr, missing[:_MOST_COLUMNS_SHOWN]))
            raise DataError(
                f"the table lacks the column(s) {shown} of the support set. Give the same columns."
            )
        place = {name: i for i, name in enumerate(names)}
        return [place[column.name] for column in self._columns]

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
        if self._columns is None:
            said = {item.value.kinds for item in items}
            kinds = [_common(set(column)) for column in zip(*said, strict=True)]
        else:
            kinds = [column.kind for column in self._columns]
        kinds = kinds or [None] * len(first.values)
        if CATEGORY not in kinds and all(isinstance(row, np.ndarray) for row in rows):
            table = np.stack(rows)
            columns = [
                _numeric(name, table[:, i], kind)
                for i, (name, kind) in enumerate(zip(first.columns, kinds, strict=True))
            ]
        else:
            columns = [
                _column([row[i] for row in rows], name, kind)
                for i, (name, kind) in enumerate(zip(first.columns, kinds, strict=True))
            ]
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
        known = None if self._columns is None else [column.to_dict() for column in self._columns]
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
        kinds: Sequence[str | None] = row.kinds
        if not kinds and self._columns is not None:
            kinds = [column.kind for column in self._columns]
        kinds = kinds or [None] * len(row.values)
        pairs = [
            f"{c}={shown(v, k)}" for c, v, k in zip(row.columns, row.values, kinds, strict=True)
        ]
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
                None if c.get("kind") is None else str(c["kind"]),
            )
            for c in known
        ]
        return TableEmbedder(columns, named=bool(config.get("named")))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the columns of the table are damaged ({error}). Fit again.") from error


def _numeric(name: str, numbers: Numbers, kind: str | None) -> Column:
    # longdouble: the sum of squares of large numbers must not overflow
    scale = float(numbers.astype(np.longdouble).std())
    # a constant column may have a tiny standard deviation by rounding: do not divide by it
    flat = not scale > 1e-12 * float(np.abs(numbers).max())
    return Column(name, float(numbers.mean()), 1.0 if flat else scale, kind=kind)


def _column(values: Sequence[float | str], name: str, kind: str | None) -> Column:
    """Return the column of a support set's values."""
    numeric = all(isinstance(value, float) for value in values)
    if kind != CATEGORY and numeric:
        return _numeric(name, np.asarray(values, dtype=np.float64), kind)
    categories = tuple(sorted({_text(value) for value in values}))
    return Column(name, categories=categories, kind=None if kind is None else CATEGORY)


def _common(kinds: set[str | None]) -> str | None:
    """Return the kind of a column that was read in several parts."""
    return next(iter(kinds)) if len(kinds) == 1 else CATEGORY


def _plain(value: Any) -> float | str:
    """Return a plain number, as JSON has it, or the text."""
    return value if isinstance(value, str) else float(value)


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


def _text(value: float | str) -> str:
    """Return a category's name; 12 digits of a number, so that 1.0 and 1 are one category."""
    return f"{value:.12g}" if isinstance(value, float) else value
