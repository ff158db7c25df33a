"""Tree-shaped targets: classes follow from comparisons of single columns with thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws, widths
from quickstudy.tasks.synthetic.graphs import RandomGraph

__all__ = ["TreeTarget"]

_COLUMN, _THRESHOLD, _LEAF, _TREES, _DEPTH, _NOISE, _NOISE_SIZE, _PLAIN, _ALONE, _USED = range(
    200, 210
)
_MOST_TREES, _MOST_DEPTH = 6, 5


@dataclass(frozen=True, slots=True)
class TreeTarget:
    """Tables whose classes are the sum of a few random trees.

    A tree compares the same column with the same threshold at all nodes of a depth (an oblivious
    tree), so that its leaf is a number of ``depth`` bits. The columns are those of a random graph,
    or in every third table independent of each other.

    Args:
        label_noise: the largest standard deviation of the noise of the scores.

    Example::

        from quickstudy.tasks.synthetic import Draws, TreeTarget
        x, scores = TreeTarget().draw(Draws(torch.tensor([1, 2])), rows=50, columns=6, classes=3)
        x.shape, scores.shape  # [2, 50, 6], [2, 50, 3]
    """

    label_noise: float = 0.5

    def draw(
        self, draws: Draws, *, rows: int, columns: int | Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return columns ``[T, N, F]`` and scores ``[T, N, C]``, see :class:`RandomGraph`."""
        columns = widths(draws, columns)
        x = plain_columns(draws, rows, columns)
        trees = 1 + draws.whole(_TREES, below=_MOST_TREES)  # [T]
        depth = 1 + draws.whole(_DEPTH, _MOST_TREES, below=_MOST_DEPTH)  # [T, trees]
        used = draws.whole(_USED, below=columns.clamp(max=12)) + 1
        place = used_columns(draws, used, columns, _MOST_TREES * _MOST_DEPTH)
        cells = x.gather(2, place[:, None].expand(-1, rows, -1))
        threshold = 0.8 * draws.normal(_THRESHOLD, _MOST_TREES * _MOST_DEPTH)[:, None]
        above = (cells > threshold).unflatten(2, (_MOST_TREES, _MOST_DEPTH))
        level = torch.arange(_MOST_DEPTH, device=x.device)
        bit = (2**level) * (level < depth[..., None])  # [T, trees, depth]
        leaf = (above * bit[:, None]).sum(3)  # [T, N, trees]
        scores = torch.zeros(len(x), rows, classes, device=x.device)
        for number in range(_MOST_TREES):
            values = draws.normal(_LEAF + 20 + number, 2**_MOST_DEPTH, classes)
            values = values * (number < trees)[:, None, None]
            at = leaf[:, :, number, None].expand(-1, -1, classes)
            scores = scores + values.gather(1, at)
        size = draws.uniform(_NOISE_SIZE).square().clamp(min=0.01) * self.label_noise
        return x, scores + size[:, None, None] * draws.normal(_NOISE, rows, classes)


def plain_columns(draws: Draws, rows: int, columns: Tensor) -> Tensor:
    """Return columns ``[T, N, F]`` of a random graph, or independent ones in a third of tables."""
    x, _ = RandomGraph().draw(draws, rows=rows, columns=columns, classes=1)
    alone = draws.chance(_PLAIN, of=1 / 3)[:, None, None]
    return torch.where(alone, draws.normal(_ALONE, rows, x.shape[2]), x)


def used_columns(draws: Draws, used: Tensor, columns: Tensor, count: int) -> Tensor:
    """Return for each of ``count`` comparisons a column among the ``used`` ones of its table,
    ``[T, count]``."""
    order = draws.order(_COLUMN, columns)  # which columns matter
    return order.gather(1, draws.whole(_COLUMN + 40, count, below=used))
