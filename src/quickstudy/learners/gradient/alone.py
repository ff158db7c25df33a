"""Whether a network judges each example alone, seen from what it answers."""

from __future__ import annotations

import torch

from quickstudy.core import Examples
from quickstudy.learners.gradient.taskwise import TaskModule

__all__ = ["judges_alone"]

_TOLERANCE = 1e-2  # relative: kernels for another number of rows round differently, by far less


@torch.no_grad()
def judges_alone(run: TaskModule, support: Examples) -> bool:
    """Return whether a network's answer for an example depends on that example alone, once the
    statistics of batch norm are given.

    A mean over the batch that is taken by hand (``x - x.mean(0)``) makes each answer depend on the
    others, and no rule can tell it from other arithmetic. So the network is asked twice: with
    all examples of a task, and with half of them.

    Args:
        run: the network; it remembers whether it came upon batch norm.
        support: examples ``[T, S, ...]``; the first task with at least two is looked at.

    Returns:
        ``True`` also where there is nothing to compare.
    """
    enough = (support.mask.sum(1) > 1).nonzero().flatten().tolist()
    if not enough:
        return True
    task = enough[0]
    x = support.x[task : task + 1, support.mask[task]]  # [1, S, ...]
    z, statistics = run({}, x, keep=True)
    given = statistics if run.normalises else None
    # every second one: examples often lie sorted by class
    half, _ = run({}, x[:, ::2].contiguous(), statistics=given)
    if z.ndim < 2 or z.shape[:2] != x.shape[:2] or half.shape[:2] != x[:, ::2].shape[:2]:
        return True  # not a row for each example, which is refused elsewhere with a remedy
    wanted = z[:, ::2]
    if not bool(torch.isfinite(wanted).all() and torch.isfinite(half).all()):
        return True
    gap, size = (half - wanted).abs().max(), wanted.abs().max()
    return bool(gap <= _TOLERANCE * size)
