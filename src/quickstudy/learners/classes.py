"""What every family of learners computes from a task: members of classes, means, distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_means", "class_weights", "squared_distance"]


def class_weights(y: Tensor, mask: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
    """Return which examples belong to which class, and which classes have support.

    Args:
        y: labels ``[T, S]``.
        mask: ``[T, S]``, ``False`` = padding.
        n_way: number of classes ``C``.

    Returns:
        Weights bool ``[T, S, C]`` and presence bool ``[T, C]``.
    """
    members = (y[..., None] == torch.arange(n_way, device=y.device)) & mask[..., None]  # [T, S, C]
    return members, members.any(1)


def class_means(x: Tensor, y: Tensor, mask: Tensor, n_way: int) -> Tensor:
    """Return the mean of each class's examples, zero where there is none.

    The sums run class by class. A matrix product with one-hot labels would multiply mostly zeros
    where there are many classes, and its rounding would depend on the number of classes.

    Args:
        x: examples ``[T, S, D]``.
        y: labels ``[T, S]``.
        mask: ``[T, S]``, ``False`` = padding.
        n_way: number of classes ``C``.

    Returns:
        Means ``[T, C, D]``.
    """
    tasks, _, dim = x.shape
    # one row for each class of each task; padding adds zeros to class 0
    rows = torch.arange(tasks, device=x.device)[:, None] * n_way + y.masked_fill(~mask, 0)
    given = x.masked_fill(~mask[..., None], 0).flatten(0, 1)
    sums = x.new_zeros(tasks * n_way, dim).index_add(0, rows.flatten(), given)
    counts = x.new_zeros(tasks * n_way).index_add(0, rows.flatten(), mask.to(x.dtype).flatten())
    means: Tensor = (sums / counts.clamp(min=1)[:, None]).view(tasks, n_way, dim)
    return means


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances of ``[T, Q, D]`` and ``[T, C, D]`` as ``[T, Q, C]``."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab: needs no tensor [T, Q, C, D]
    cross = a @ b.transpose(1, 2)
    return a.square().sum(2)[..., None] + b.square().sum(2)[:, None] - 2 * cross
