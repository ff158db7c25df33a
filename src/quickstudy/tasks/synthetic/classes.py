"""From scores to classes of given sizes, and from rows to support and queries."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws

__all__ = ["classes_by_cuts", "classes_by_scores", "split_rows"]

_ORDER, _PIECE, _WHOLE, _TIE = range(500, 504)
_FAR = 1e30


def classes_by_cuts(draws: Draws, latent: Tensor, sizes: Tensor) -> Tensor:
    """Return the class of each row by cutting one number at ranks; each class gets its size.

    In half of the tables a class is one interval of the number, in the other half it may be two.

    Args:
        draws: of ``T`` tables.
        latent: ``[T, N]``.
        sizes: rows of each class, int64 ``[T, C]``; rows beyond their sum are padding.

    Returns:
        Classes int64 ``[T, N]``, ``C`` for padding.
    """
    n_way = sizes.shape[1]
    share = draws.uniform(_PIECE, n_way)
    share = torch.where(draws.chance(_WHOLE, of=0.5)[:, None], 1.0, share)
    first = (share * sizes).long().clamp(max=sizes)
    pieces = torch.cat([first, sizes - first], 1)  # [T, 2 C]
    # classes in random order along the number
    order = draws.uniform(_ORDER, 2 * n_way).argsort(dim=1, stable=True)
    ends = pieces.gather(1, order).cumsum(1)
    rank = _ranks(latent, sizes.sum(1))
    at = torch.searchsorted(ends, rank, right=True)
    padded = torch.cat([order % n_way, torch.full_like(order[:, :1], n_way)], 1)
    return padded.gather(1, at)


def classes_by_scores(draws: Draws, scores: Tensor, sizes: Tensor) -> Tensor:
    """Return the class of each row by the scores of the classes; each class gets its size.

    Class after class takes the rows, of those that are left, where its score is the most above the
    highest of the other classes. The order of the classes is random.

    Args:
        draws: of ``T`` tables.
        scores: ``[T, N, C]``.
        sizes: rows of each class, int64 ``[T, C]``; rows beyond their sum are padding.

    Returns:
        Classes int64 ``[T, N]``, ``C`` for padding.
    """
    n_way = sizes.shape[1]
    y = torch.full(scores.shape[:2], n_way, device=scores.device)
    there = sizes > 0
    scores = scores.masked_fill(~there[:, None], -_FAR)
    best = scores.topk(min(2, n_way), dim=2).values
    total = sizes.sum(1)
    free = torch.arange(scores.shape[1], device=scores.device) < total[:, None]
    order = draws.uniform(_ORDER, n_way).argsort(dim=1, stable=True)
    for turn in range(n_way):
        c = order[:, turn : turn + 1]  # [T, 1]
        own = scores.gather(2, c[:, None].expand(-1, scores.shape[1], -1))[..., 0]
        other = torch.where(own == best[..., 0], best[..., -1], best[..., 0])
        ahead = torch.where(free, own - other, -_FAR)
        taken = (_ranks(-ahead, total) < sizes.gather(1, c)) & free
        y = torch.where(taken, c, y)
        free &= ~taken
    return y


def split_rows(
    draws: Draws, y: Tensor, shots: Tensor, queries: Tensor, longest: tuple[int, int]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return which rows are support and which are queries, in random order.

    Args:
        draws: of ``T`` tables.
        y: class of each row ``[T, N]``, ``C`` for padding.
        shots: support rows of each class ``[T, C]``.
        queries: query rows of each class ``[T, C]``.
        longest: ``S`` and ``Q``.

    Returns:
        For the support and for the queries: rows int64 ``[T, S]`` and mask bool ``[T, S]``.
    """
    n_way = shots.shape[1]
    own = torch.nn.functional.one_hot(y, n_way + 1)[..., :n_way]  # [T, N, C]
    # which of its class each row is: rows are independent, so the first ones are a random choice
    place = ((own.cumsum(1) - 1) * own).sum(2)
    at = y.clamp(max=n_way - 1)
    inside = y < n_way
    support = inside & (place < shots.gather(1, at))
    chosen = torch.where(support, 0, torch.where(inside, 1, 2))
    shuffle = draws.uniform(_TIE, y.shape[1])
    found = []
    for side, (count, length) in enumerate(zip((shots, queries), longest, strict=True)):
        order = (
            shuffle.masked_fill(chosen != side, 2.0).sort(dim=1, stable=True).indices[:, :length]
        )
        mask = torch.arange(length, device=y.device) < count.sum(1, keepdim=True)
        found.append((order, mask))
    return found[0], found[1]


def _ranks(values: Tensor, total: Tensor) -> Tensor:
    """Return the rank of each row by its value ``[T, N]``, padding last."""
    inside = torch.arange(values.shape[1], device=values.device) < total[:, None]
    order = values.masked_fill(~inside, torch.inf).sort(dim=1, stable=True).indices
    ranks = torch.empty_like(order)
    rows = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return ranks.scatter_(1, order, rows)
