"""Leave-one-out for any head: closed form where the head has one, refits where it has none."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.base import Learner, LeavesOneOut

__all__ = ["leave_one_out", "leave_one_out_by_refits"]

# numbers of support copies at once: some hundred megabytes
_NUMBERS_AT_ONCE = 1 << 24


def leave_one_out(head: Learner, support: Examples, *, n_way: int) -> Tensor:
    """Return the logits of each support example from a state that was learned without it.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.

    Returns:
        Logits ``[T, S, C]``, see :class:`~quickstudy.learners.base.LeavesOneOut`.
    """
    if isinstance(head, LeavesOneOut):
        return head.leave_one_out(support, n_way=n_way)
    return leave_one_out_by_refits(head, support, n_way=n_way)


def leave_one_out_by_refits(head: Learner, support: Examples, *, n_way: int) -> Tensor:
    """Return the same by adapting ``S`` times: the definition, and slow.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
    """
    tasks, size = support.y.shape
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, support.x[0].numel()))
    left_out = ~torch.eye(size, dtype=torch.bool, device=support.y.device)  # [S, S]
    rows: list[Tensor] = []
    for t in range(tasks):
        for some in left_out.split(at_once):
            one = Examples(
                support.x[t].expand(len(some), -1, -1),
                support.y[t].expand(len(some), -1),
                support.mask[t] & some,
            )
            state = head.adapt(one, n_way=n_way)
            index = (~some).int().argmax(1)
            rows.append(head.predict(state, support.x[t, index, None])[:, 0])  # [n, C]
    found: Tensor = torch.cat(rows).unflatten(0, (tasks, size))
    return found
