"""What every family computes of the classes of a task: members, means, distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_means", "class_weights", "squared_distance"]


def class_weights(y: Tensor, mask: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
    """Return one-hot labels without padding, and which classes have support.

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

    Summed class by class: a product with one-hot labels is mostly zeros for many classes, and its
    rounding depends on how many there are.

    Args:
        x: examples ``[T, S, D]``.
        y: labels ``[T, S]``.
        mask: ``[T, S]``, ``False`` = padding.
        n_way: number of classes ``C``.

    Returns:
        Means ``[T, C, D]``.
    """
    tasks, _, dim = x.shape
    # padding adds zeros to class 0
    rows = torch.arange(tasks, device=x.device)[:, None] * n_way + y.masked_fill(~mask, 0)
    given = x.masked_fill(~mask[..., None], 0).flatten(0, 1)
    sums = x.new_zeros(tasks * n_way, dim).index_add(0, rows.flatten(), given)
    counts = x.new_zeros(tasks * n_way).index_add(0, rows.flatten(), mask.to(x.dtype).flatten())
    means: Tensor = (sums / counts.clamp(min=1)[:, None]).view(tasks, n_way, dim)
    return means


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return squared Euclidean distances of ``[T, Q, D]`` and ``[T, C, D]`` as ``[T, Q, C]``."""
    cross = a @ b.transpose(1, 2)
    return a.square().sum(2)[..., None] + b.square().sum(2)[:, None] - 2 * cross
