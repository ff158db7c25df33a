"""Batches of made-up tables of given sizes: columns, classes, support and queries."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.tasks.synthetic.classes import classes_by_cuts, classes_by_scores, split_rows
from quickstudy.tasks.synthetic.columns import ColumnForms, MissingValues
from quickstudy.tasks.synthetic.draws import Draws
from quickstudy.tasks.synthetic.gaussian import LinearGaussian
from quickstudy.tasks.synthetic.graphs import RandomGraph
from quickstudy.tasks.synthetic.rules import RuleTarget
from quickstudy.tasks.synthetic.trees import TreeTarget

__all__ = ["TableMaker"]

_MECHANISM, _BY_SCORES, _FLIPPED, _FLIP, _NAMES = range(10, 15)
_MECHANISMS = ("graph", "tree", "rules", "gaussian")


@dataclass(frozen=True, slots=True)
class TableMaker:
    """Makes batches of tables by random mechanisms.

    Args:
        shares: of graphs, trees, rules and Gaussian classes among the tables.
        forms: of the columns.
        missing: which cells are missing.

    Example::

        from quickstudy.tasks.synthetic import Draws, TableMaker
        shots = torch.full((2, 3), 5)  # two tables, three classes
        support, query = TableMaker().make(
            Draws(torch.tensor([1, 2])), shots, queries=shots, columns=torch.tensor([4, 6])
        )
        support.x  # [2, 15, 6]
    """

    shares: tuple[float, float, float, float] = (0.6, 0.2, 0.05, 0.15)
    forms: ColumnForms = field(default_factory=ColumnForms)
    missing: MissingValues = field(default_factory=MissingValues)

    def mechanism(self, draws: Draws) -> Tensor:
        """Return the number of each table's mechanism in ``shares``, int64 ``[T]``."""
        edges = torch.tensor(self.shares, dtype=torch.float64).cumsum(0)
        edges = (edges / edges[-1]).to(torch.float32).to(draws.key.device)
        return torch.searchsorted(edges, draws.uniform(_MECHANISM), right=True).clamp(max=3)

    def make(
        self,
        draws: Draws,
        shots: Tensor,
        *,
        queries: Tensor,
        columns: Tensor,
        longest: tuple[int, int] | None = None,
    ) -> tuple[Examples, Examples]:
        """Return support and queries of ``T`` tables.

        Args:
            draws: of the tables.
            shots: support rows of each class, int64 ``[T, C]``; 0 where a table lacks a class.
            queries: query rows of each class, int64 ``[T, C]``.
            columns: of each table, int64 ``[T]``; others are filled with NaN.
            longest: ``S`` and ``Q``; as many as needed if not given.

        Returns:
            x float32 ``[T, S, F]``, NaN where a value is missing.
        """
        if longest is None:
            longest = (int(shots.sum(1).max()), int(queries.sum(1).max()))
        rows, wide, n_way = sum(longest), int(columns.max()), shots.shape[1]
        sizes = shots + queries
        x = torch.zeros(len(shots), rows, wide, device=shots.device)
        y = torch.zeros(len(shots), rows, dtype=torch.int64, device=shots.device)
        which = self.mechanism(draws)
        for number in range(len(_MECHANISMS)):
            at = (which == number).nonzero().flatten()
            if len(at):
                x[at], y[at] = _classified(draws.of(at), number, rows, columns[at], sizes[at], wide)
        x = self.missing.apply(draws, self.forms.apply(draws, x), columns)
        there = torch.arange(wide, device=x.device) < columns[:, None]
        x = x.masked_fill(~there[:, None], torch.nan)
        sides = split_rows(draws, y, shots, queries, longest)
        found = []
        for order, mask in sides:
            cells = x.gather(1, order[..., None].expand(-1, -1, wide))
            labels = y.gather(1, order).clamp(max=n_way - 1)
            found.append(Examples(cells.masked_fill(~mask[..., None], 0.0), labels * mask, mask))
        return found[0], found[1]


def _classified(
    draws: Draws, number: int, rows: int, columns: Tensor, sizes: Tensor, wide: int
) -> tuple[Tensor, Tensor]:
    """Return columns ``[T, N, F]`` and classes ``[T, N]`` by one mechanism."""
    n_way = sizes.shape[1]
    if _MECHANISMS[number] == "gaussian":
        any_order = draws.uniform(_NAMES, rows)
        y = classes_by_cuts(draws, any_order, sizes)
        x, _ = LinearGaussian().draw(draws, rows=rows, columns=columns, classes=n_way + 1, labels=y)
        return torch.nn.functional.pad(x, (0, wide - x.shape[2])), y
    targets: dict[str, RandomGraph | TreeTarget | RuleTarget] = {
        "graph": RandomGraph(),
        "tree": TreeTarget(),
        "rules": RuleTarget(),
    }
    mechanism = targets[_MECHANISMS[number]]
    x, scores = mechanism.draw(draws, rows=rows, columns=columns, classes=n_way)
    by_scores = draws.chance(_BY_SCORES, of=0.6)[:, None]
    x = torch.nn.functional.pad(x, (0, wide - x.shape[2]))
    return x, torch.where(
        by_scores,
        classes_by_scores(draws, scores, sizes),
        classes_by_cuts(draws, scores[..., 0], sizes),
    )
