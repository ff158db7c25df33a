"""How far examples lie from the support of a task: far ones may belong to none of its classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.fitting.space import unit_rows
from quickstudy.learners.heads import held_out_together

__all__ = ["Neighbourhood"]

# support examples whose own distances are computed, at most: more tell nothing new
_MOST_JUDGED = 2000


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The distances of one task: of queries, and of its own examples as if they were queries.

    The distance of a query is that to the nearest example plus that to the nearest class mean, of
    whatever class. For embeddings a distance is one minus a cosine, uncentred: what all examples of
    a task have in common is what a stranger may lack. For columns of a table it is Euclidean. Li,
    Wang et al. (2022), arXiv:2206.09236, found such distances hard to beat in few-shot open-set
    recognition.

    Args:
        x: the support less ``centre``, of length 1 before unless it is columns ``[S, D']``.
        means: of the classes with examples, likewise ``[C', D']``.
        centre: mean of the support: what all examples share would drown distances in rounding
            ``[D']``.
        columns: whether embeddings are columns of a table.
        own: distance of each judged example from all others, without its copies and its group
            ``[N]``.
        apart: its distance from the examples and means of other classes only ``[N]``.
        several: whether every judged example has another one in its class.

    Example::

        z, y = torch.randn(10, 64), torch.arange(5).repeat(2)
        near = Neighbourhood.of(z, y)
        near(torch.randn(3, 64))  # [3]
        near.unit  # the usual distance of an example
    """

    x: Tensor
    means: Tensor
    centre: Tensor
    columns: bool
    own: Tensor
    apart: Tensor
    several: bool

    @classmethod
    def of(
        cls, z: Tensor, y: Tensor, *, columns: bool = False, groups: Tensor | None = None
    ) -> Neighbourhood:
        """Return the neighbourhood of a support.

        Args:
            z: embeddings ``[S, D]``.
            y: labels ``[S]``.
            columns: whether embeddings are columns of a table.
            groups: number of the group that each example belongs to ``[S]``; ``None`` = only copies
                belong together.
        """
        x = _placed(z, columns)
        centre = x.double().mean(0).to(x)
        x = x - centre
        together = held_out_together(
            Examples.full(z[None], y[None]), None if groups is None else groups[None]
        )[0]  # [S]
        labels, index = torch.unique(y, return_inverse=True)
        sums = torch.zeros(len(labels), x.shape[1]).index_add_(0, index, x)
        counts = torch.bincount(index)
        # how many examples of each class are not held out together
        distinct = torch.bincount(torch.unique(together * len(labels) + index) % len(labels))
        judged = (distinct[index] > 1).nonzero()[:, 0]
        # with fewer than two such examples, distances between classes are all there is
        several = len(judged) > 1
        rows = judged if several else torch.arange(len(y))
        rows = rows[:: max(1, -(-len(rows) // _MOST_JUDGED))]
        mean = _Mean(centre, columns)
        own, apart = _own(x, index, together, sums, counts, rows, mean)
        return cls(x, mean(sums, counts), centre, columns, own, apart, several)

    def __call__(self, z: Tensor) -> Tensor:
        """Return the distances of queries ``[Q, D] -> [Q]``, in float64."""
        x = _placed(z, self.columns) - self.centre
        nearest = _distance(x, self.x, self.columns).amin(1)
        return (nearest + _distance(x, self.means, self.columns).amin(1)).double()

    @property
    def unit(self) -> float:
        """The mean distance of the task's own examples; 1 where there is none."""
        found = self.own[self.own.isfinite()]
        value = float(found.mean()) if len(found) else 0.0
        return value if value > 1e-10 else 1.0


def _placed(z: Tensor, columns: bool) -> Tensor:
    """Return embeddings as they are compared: columns as they are, others of length 1."""
    if columns:
        return z.float()
    x = unit_rows(z.float())
    # a row of zeros has no direction: it gets one of its own, at distance 1 from all others
    return torch.cat([x, (z == 0).all(1, keepdim=True).to(x)], 1)


@dataclass(frozen=True, slots=True)
class _Mean:
    """The mean of rows less ``centre``, itself less ``centre`` and of length 1 before."""

    centre: Tensor
    columns: bool

    def __call__(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Return the means of these sums of rows ``[..., D]``."""
        means = sums / counts[..., None].clamp(min=1)
        return means if self.columns else unit_rows(means + self.centre) - self.centre


def _distance(a: Tensor, b: Tensor, columns: bool) -> Tensor:
    """Return distances ``[Q, D], [N, D] -> [Q, N]``."""
    if columns:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    # one minus the cosine, of vectors of length 1 whose common part was taken away
    squares = a.square().sum(1)[:, None] + b.square().sum(1)
    return (squares / 2 - a @ b.T).clamp(min=0)


def _own(
    x: Tensor,
    index: Tensor,
    together: Tensor,
    sums: Tensor,
    counts: Tensor,
    rows: Tensor,
    mean: _Mean,
) -> tuple[Tensor, Tensor]:
    """Return the distances of these examples from all others and from other classes ``[N]``."""
    same = index[rows, None] == index  # [N, S]
    out = together[rows, None] == together
    every = _distance(x[rows], x, mean.columns)
    to_mean = _distance(x[rows], mean(sums, counts), mean.columns)  # [N, C']
    other_class = to_mean.scatter(1, index[rows, None], math.inf)
    # the mean of its own class without the example and what is held out with it
    left = same & out
    rest = counts[index[rows]] - left.sum(1)
    difference = mean(sums[index[rows]] - left.to(x) @ x, rest) - x[rows]
    own_mean = difference.norm(dim=1)
    if not mean.columns:
        own_mean = own_mean.square() / 2
    own_mean = own_mean.masked_fill(rest < 1, math.inf)
    own = every.masked_fill(out, math.inf).amin(1) + torch.minimum(own_mean, other_class.amin(1))
    apart = every.masked_fill(same, math.inf).amin(1) + other_class.amin(1)
    return own.double(), apart.double()
