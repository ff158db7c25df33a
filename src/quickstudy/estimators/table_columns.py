"""Columns of a user's table as numbers, missing values kept, for the in-context classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.core import DataError
from quickstudy.embedders.columns import ReadColumn, read_column, refuse_faults
from quickstudy.embedders.grids import Grid, read_grid
from quickstudy.tables.cells import CATEGORY

__all__ = ["TableColumns"]


@dataclass(frozen=True, slots=True)
class TableColumns:
    """How the columns of a support set are read; :meth:`of` finds it out.

    Args:
        names: of the columns.
        named: whether the names are the table's own, by which columns are found.
        kinds: of their cells, see :data:`quickstudy.tables.cells.KINDS`.
        categories: of each column, sorted; ``None`` for numbers.
        spread: most categories that become a column each; codes of more stay one column.

    Example::

        from quickstudy.estimators.table_columns import TableColumns
        columns = TableColumns.of([[1.0, "red"], [None, "blue"]], spread=0)
        columns.numbers([[2.0, "green"]])  # [[2., nan]]
    """

    names: tuple[str, ...]
    named: bool
    kinds: tuple[str, ...]
    categories: tuple[tuple[str, ...] | None, ...]
    spread: int

    @classmethod
    def of(cls, X: Any, *, spread: int) -> TableColumns:
        """Return how the columns of a table are read.

        Args:
            X: see :func:`quickstudy.embedders.grids.read_grid`.
            spread: see the class.
        """
        grid = read_grid(X)
        kinds = tuple(grid.kind(i) for i in range(len(grid.names)))
        read = [read_column(grid.columns[i], kind) for i, kind in enumerate(kinds)]
        known = tuple(
            tuple(sorted({str(v) for v in column.values if v})) if kind == CATEGORY else None
            for kind, column in zip(kinds, read, strict=True)
        )
        return cls(grid.names, grid.named, kinds, known, spread)

    def numbers(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the cells ``[N, F]`` in float64, NaN where one is missing or not a known category.

        Raises:
            DataError: if a column lacks, or a value is infinite or of another kind; row and column
                are named.
        """
        grid = read_grid(X)
        order = self._order(grid)
        read = [
            read_column(grid.columns[i], kind, categories=known, fitted=True)
            for i, kind, known in zip(order, self.kinds, self.categories, strict=True)
        ]
        # missing values are welcome here, others that cannot be used are not
        refuse_faults([ReadColumn(c.values, [], c.faults) for c in read], self.names, grid)
        parts = [
            self._column(column, known) for column, known in zip(read, self.categories, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def _column(self, column: ReadColumn, known: tuple[str, ...] | None) -> npt.NDArray[np.float64]:
        if known is None:
            # what float32 cannot hold must not become infinite
            values = np.asarray(column.values, dtype=np.float64)[:, None]
            return np.clip(values, -1e30, 1e30)
        code = {name: float(number) for number, name in enumerate(known)}
        codes = np.array([code.get(str(v), np.nan) for v in column.values])[:, None]
        if 2 < len(known) <= self.spread:
            own = (codes == np.arange(len(known))).astype(np.float64)
            return np.where(np.isnan(codes), np.nan, own)
        return codes

    def _order(self, grid: Grid) -> list[int]:
        """Return the positions in a table of the support set's columns."""
        if not (grid.named and self.named):
            if len(grid.names) != len(self.names):
                raise DataError(
                    f"X has {len(grid.names)} features, but TabularInContextClassifier is "
                    f"expecting {len(self.names)} features as input. Give the columns of fit."
                )
            return list(range(len(self.names)))
        place = {name: i for i, name in enumerate(grid.names)}
        if missing := [name for name in self.names if name not in place]:
            shown = ", ".join(map(repr, missing[:6]))
            raise DataError(f"the table lacks the column(s) {shown}. Give the columns of fit.")
        return [place[name] for name in self.names]
