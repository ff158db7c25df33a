"""How much each support example counts, for heads that fit all classes together."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.classes import class_weights, without_padding

__all__ = ["weighted"]


def weighted(
    support: Examples, n_way: int, *, balanced: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs ``[T, S, D]`` with zeros for padding, one-hot labels ``[T, S, C]``, weights
    ``[T, S]`` that sum to the number of examples, and presence bool ``[T, C]``.

    Args:
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        balanced: every class has the same total weight; otherwise every example has weight 1.

    Raises:
        TaskError: if a label lies outside ``[0, n_way)``.
    """
    support.check_labels(n_way)
    support = without_padding(support)
    members, present = class_weights(support.y, support.mask, n_way)
    x, y = support.x, members.to(support.x.dtype)
    weights = support.mask.to(x.dtype)
    if balanced:
        # each present class gets the same share of the examples, split evenly among its members
        share = weights.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
        weights = (y * (share / y.sum(1).clamp(min=1))[:, None]).sum(2)
    return x, y, weights, present
