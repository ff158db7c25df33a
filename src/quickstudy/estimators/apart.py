"""Heads that learn each class from its own examples, computed so that classes cannot touch each other.

In exact arithmetic a class that is added changes no other class's score. In floating point it may: a
larger matrix product adds up in another order. Here every class is learned as a task of its own and
scored in blocks of fixed shape, so that the other classes' scores stay the same to the last bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import Examples, TaskState
from quickstudy.learners import Learner

__all__ = ["adapt_apart", "predict_apart"]

_BLOCK = 32


def adapt_apart(head: Learner, z: Tensor, y: npt.NDArray[np.int64], n_way: int) -> TaskState:
    """Return the state of one task ``{name: [1, C, ...]}``, each class learned by itself.

    Args:
        head: a learner whose state has the axes ``[T, C, ...]`` and whose classes are independent.
        z: embeddings ``[N, D]``.
        y: classes ``[N]``.
        n_way: number of classes ``C``, each with an example.
    """
    counts = np.bincount(y, minlength=n_way)
    order = np.argsort(y, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    parts: dict[str, list[Tensor]] = {}
    columns = []
    for count in np.unique(counts):
        # the classes of one size are a batch of tasks with one class each
        same = np.flatnonzero(counts == count)
        rows = order[first[same][:, None] + np.arange(count)[None]]  # [classes, count]
        support = Examples.full(z[torch.from_numpy(rows)], torch.zeros(rows.shape).long())
        for name, value in head.adapt(support, n_way=1).items():
            parts.setdefault(name, []).append(value[:, 0])
        columns.append(same)
    back = torch.from_numpy(np.argsort(np.concatenate(columns), kind="stable"))
    return {name: torch.cat(values)[back][None] for name, values in parts.items()}


def predict_apart(head: Learner, state: TaskState, x: Tensor) -> Tensor:
    """Return the logits ``[Q, C]`` of queries ``[Q, D]``, in blocks of classes of one size."""
    n_way = next(iter(state.values())).shape[1]
    blocks = []
    for start in range(0, n_way, _BLOCK):
        part = {name: value[:, start : start + _BLOCK] for name, value in state.items()}
        missing = _BLOCK - next(iter(part.values())).shape[1]
        if missing:
            # filled up with the first class: any finite number would do
            part = {
                name: torch.cat([v, v[:, :1].expand(-1, missing, *v.shape[2:])], 1)
                for name, v in part.items()
            }
        part = {name: value.contiguous() for name, value in part.items()}
        blocks.append(head.predict(part, x[None])[0])
    return torch.cat(blocks, 1)[:, :n_way]
