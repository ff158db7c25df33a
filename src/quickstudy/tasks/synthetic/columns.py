"""What happens to the columns of a made-up table: forms of numbers, categories, missing values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws, widths

__all__ = ["ColumnForms", "MissingAtRandom", "MissingByColumn", "MissingByValue", "MissingValues"]

_FORM, _LEVELS, _EDGES, _CODES, _PERMUTED, _SHARE = range(600, 606)
_TABLE, _KIND, _COLUMNS, _CELL, _SIGN, _CAUSE = range(650, 656)
_MOST_LEVELS = 10


@dataclass(frozen=True, slots=True)
class ColumnForms:
    """Columns as tables have them: skewed numbers, whole numbers, ordinal codes of categories.

    Args:
        coded: share of the columns of a table that are cut into 2 to 10 levels, at most; a table
            draws its own share below it. Half of these columns are categories: their codes are in
            random order.
        warped: share of the others that are stretched by a monotone function.

    Example::

        from quickstudy.tasks.synthetic import ColumnForms, Draws
        x = ColumnForms().apply(Draws(torch.tensor([1, 2])), torch.randn(2, 50, 6))
    """

    coded: float = 0.8
    warped: float = 0.4

    def apply(self, draws: Draws, x: Tensor) -> Tensor:
        """Return the columns ``[T, N, F]`` in their forms."""
        columns = x.shape[2]
        u = draws.uniform(_FORM, columns)[:, None]  # [T, 1, F]
        share = (self.coded * draws.uniform(_SHARE).square())[:, None, None]
        kind = draws.whole(_FORM + 20, columns, below=3)[:, None]
        steep = torch.exp(x.clamp(-6.0, 6.0) * 0.8)
        signed = x.abs().sqrt() * x.sign()
        cubed = x.clamp(-6.0, 6.0) ** 3 * 0.3
        warped = torch.where(kind == 0, steep, torch.where(kind == 1, signed, cubed))
        stretched = draws.chance(_FORM + 21, columns, of=self.warped)[:, None]
        numbers = torch.where(stretched, warped, x)
        return torch.where(u < share, self._codes(draws, x), numbers)

    @staticmethod
    def _codes(draws: Draws, x: Tensor) -> Tensor:
        """Return the levels of each cell: the number of thresholds below it, maybe renamed."""
        columns = x.shape[2]
        levels = 2 + (draws.uniform(_LEVELS, columns).square() * (_MOST_LEVELS - 1)).long()
        edges = 0.9 * draws.normal(_EDGES, columns, _MOST_LEVELS - 1)  # [T, F, edges]
        code = torch.zeros_like(x, dtype=torch.int64)
        for number in range(_MOST_LEVELS - 1):
            used = (number < levels - 1)[:, None]
            code = code + ((x > edges[:, None, :, number]) & used)
        names = draws.uniform(_CODES, columns, _MOST_LEVELS)
        names = torch.where(
            torch.arange(_MOST_LEVELS, device=x.device) < levels[..., None], names, 2.0
        )
        renamed = names.argsort(dim=2, stable=True).transpose(1, 2).gather(1, code)  # [T, N, F]
        category = draws.chance(_PERMUTED, columns, of=0.5)[:, None]
        return torch.where(category, renamed, code).to(x.dtype)


@dataclass(frozen=True, slots=True)
class MissingAtRandom:
    """Each cell of a column is missing with the same probability.

    Example::

        from quickstudy.tasks.synthetic import Draws, MissingAtRandom
        x = torch.randn(2, 50, 6)
        gone = MissingAtRandom().where(Draws(torch.tensor([1, 2])), x, torch.full((2, 6), 0.2))
    """

    def where(self, draws: Draws, x: Tensor, share: Tensor) -> Tensor:
        """Return which cells are missing, bool ``[T, N, F]``.

        Args:
            draws: of ``T`` tables.
            x: columns ``[T, N, F]``.
            share: of each column's cells ``[T, F]``.
        """
        return draws.uniform(_CELL, *x.shape[1:]) < share[:, None]


@dataclass(frozen=True, slots=True)
class MissingByColumn:
    """Cells are missing more often where another column is high (or low).

    Example::

        from quickstudy.tasks.synthetic import Draws, MissingByColumn
        x = torch.randn(2, 50, 6)
        gone = MissingByColumn().where(Draws(torch.tensor([1, 2])), x, torch.full((2, 6), 0.2))
    """

    def where(
        self, draws: Draws, x: Tensor, share: Tensor, columns: int | Tensor | None = None
    ) -> Tensor:
        """Return which cells are missing, see :meth:`MissingAtRandom.where`.

        Args:
            draws: of ``T`` tables.
            x: columns ``[T, N, F]``.
            share: of each column's cells ``[T, F]``.
            columns: of each table ``[T]``; all ``F`` if not given.
        """
        known = widths(draws, x.shape[2] if columns is None else columns)
        other = draws.whole(_CAUSE, x.shape[2], below=known)
        cause = x.gather(2, other[:, None].expand_as(x))
        return _by(draws, cause, share)


@dataclass(frozen=True, slots=True)
class MissingByValue:
    """Cells are missing more often where their own value is high (or low).

    Example::

        from quickstudy.tasks.synthetic import Draws, MissingByValue
        x = torch.randn(2, 50, 6)
        gone = MissingByValue().where(Draws(torch.tensor([1, 2])), x, torch.full((2, 6), 0.2))
    """

    def where(self, draws: Draws, x: Tensor, share: Tensor) -> Tensor:
        """Return which cells are missing, see :meth:`MissingAtRandom.where`."""
        return _by(draws, x, share)


def _by(draws: Draws, cause: Tensor, share: Tensor) -> Tensor:
    """Return missing cells that are up to twice as likely where the cause is above 0."""
    side = torch.where(draws.chance(_SIGN, cause.shape[2], of=0.5)[:, None], 1.0, -1.0)
    likely = torch.where(cause * side > 0, 1.9, 0.1)
    return draws.uniform(_CELL, *cause.shape[1:]) < share[:, None] * likely


@dataclass(frozen=True, slots=True)
class MissingValues:
    """Takes cells out of some tables, each by one of the three mechanisms.

    Args:
        tables: share of the tables with missing values.
        most: the largest share of a column's cells that is missing, on average.

    Example::

        from quickstudy.tasks.synthetic import Draws, MissingValues
        x = MissingValues(tables=1.0).apply(Draws(torch.tensor([1, 2])), torch.randn(2, 50, 6))
        x.isnan().float().mean()
    """

    tables: float = 0.3
    most: float = 0.4

    def apply(self, draws: Draws, x: Tensor, columns: int | Tensor | None = None) -> Tensor:
        """Return the columns ``[T, N, F]``, NaN where a cell is missing.

        Args:
            draws: of ``T`` tables.
            x: columns ``[T, N, F]``.
            columns: of each table ``[T]``; all ``F`` if not given.
        """
        some = draws.chance(_COLUMNS, x.shape[2], of=0.5)
        share = draws.uniform(_COLUMNS + 20, x.shape[2], high=self.most) * some
        kind = draws.whole(_KIND, below=3)[:, None, None]
        found = (
            MissingAtRandom().where(draws, x, share),
            MissingByColumn().where(draws, x, share, columns),
            MissingByValue().where(draws, x, share),
        )
        gone = torch.zeros_like(x, dtype=torch.bool)
        for number, cells in enumerate(found):
            gone |= cells & (kind == number)
        hit = draws.chance(_TABLE, of=self.tables)[:, None, None]
        return x.masked_fill(gone & hit, torch.nan)
