"""Leave-one-out for any head: closed form where the head has one, refits where it has none."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.base import Learner, LeavesOneOut
from quickstudy.learners.heads.centred import CentredHead
from quickstudy.learners.metric import class_weights

__all__ = ["leave_one_out", "leave_out_by_refits"]

# numbers of support copies at once: some hundred megabytes
_NUMBERS_AT_ONCE = 1 << 24


def leave_one_out(
    head: Learner, support: Examples, *, n_way: int, folds: int | None = None
) -> Tensor:
    """Return the logits of each support example from a state that was learned without it.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: a head without a closed form is refitted this often at most, each time without a part
            of every class (stratified cross-validation); ``None`` = ``S`` times, without one.

    Returns:
        Logits ``[T, S, C]``, see :class:`~quickstudy.learners.base.LeavesOneOut`.
    """
    if isinstance(head, CentredHead):
        # the centre is held: one example moves it by a small part of one class's share
        seen = head.seen(support, n_way=n_way)
        return leave_one_out(head.head, seen, n_way=n_way, folds=folds)
    if isinstance(head, LeavesOneOut):
        return head.leave_one_out(support, n_way=n_way)
    return leave_out_by_refits(head, support, n_way=n_way, folds=folds)


def leave_out_by_refits(
    head: Learner, support: Examples, *, n_way: int, folds: int | None = None
) -> Tensor:
    """Return the same by adapting again and again: the definition, and slow.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: see :func:`leave_one_out`.
    """
    tasks, size = support.y.shape
    part = _parts(support, n_way, folds)  # [T, S]: which refit leaves the example out
    rounds = int(part.max()) + 1 if part.numel() else 0
    found: Tensor = support.x.new_zeros(tasks, size, n_way)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, support.x.numel()))
    for first in range(0, rounds, at_once):
        index = torch.arange(first, min(first + at_once, rounds), device=part.device)
        out = part == index[:, None, None]  # [R, T, S]
        n = len(index)
        kept = support.mask & ~out
        # a head learns nothing from nothing: a task that would lose all stays whole, and says so
        emptied = ~kept.any(2, keepdim=True)
        many = Examples(
            support.x.expand(n, -1, -1, -1).flatten(0, 1),
            support.y.expand(n, -1, -1).flatten(0, 1),
            torch.where(emptied, support.mask, kept).flatten(0, 1),
        )
        logits = head.predict(head.adapt(many, n_way=n_way), many.x)
        logits = logits.masked_fill(emptied.flatten(0, 1)[..., None], -torch.inf)
        logits = logits.unflatten(0, (n, tasks))  # [R, T, S, C]
        found = torch.where(out.any(0)[..., None], _pick(logits, out), found)
    return found


def _pick(logits: Tensor, out: Tensor) -> Tensor:
    """Return each example's logits from the round that left it out, ``[R, T, S, C] -> [T, S, C]``.

    Not by a product with ``out``: logits may be infinite.
    """
    which = out.int().argmax(0)[None, ..., None].expand(1, *logits.shape[1:])
    return logits.gather(0, which)[0]


def _parts(support: Examples, n_way: int, folds: int | None) -> Tensor:
    """Return the number of the refit that leaves an example out ``[T, S]``."""
    size = support.y.shape[1]
    if folds is None:
        return torch.arange(size, device=support.y.device).expand_as(support.y)
    members, _ = class_weights(support.y, support.mask, n_way)
    rank = (members.cumsum(1) - 1).gather(2, support.y.clamp(0, n_way - 1)[..., None])[..., 0]
    return rank.clamp(min=0) % max(2, folds)
