"""What every family of learners computes from a task: members of classes, means, distances."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples

__all__ = ["class_means", "class_weights", "moved_to_centre", "squared_distance", "without_padding"]


def without_padding(embedded: Examples) -> Examples:
    """Return the examples with zeros in place of padding, which may hold anything, NaN included.

    A weight of zero does not keep padding out of a sum or of its gradient: zero times NaN is NaN.

    Args:
        embedded: examples ``[T, N, D]``.
    """
    x = embedded.x.masked_fill(~embedded.mask[..., None], 0)
    return Examples(x, embedded.y.masked_fill(~embedded.mask, 0), embedded.mask)


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


def moved_to_centre(a: Tensor, b: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return both minus the mean of ``b``, which changes no difference between their rows.

    Where all points lie far from zero, products of them are large numbers whose small differences
    are wanted: in float32 nothing is left of those. Products of centred points keep their digits.

    Args:
        a: points ``[T, Q, D]``.
        b: points ``[T, C, D]``.
        valid: which rows of ``b`` count, bool ``[T, C]``; the others become zeros. ``None`` = all.
    """
    if valid is not None:
        b = b.masked_fill(~valid[..., None], 0)
    count = b.shape[1] if valid is None else valid.sum(1).clamp(min=1)[:, None, None]
    # only a place to compute from: the gradient is the same wherever it lies
    centre = (b.sum(1, keepdim=True) / count).detach()  # [T, 1, D]
    a, b = a - centre, b - centre
    return a, b if valid is None else b.masked_fill(~valid[..., None], 0)


def squared_distance(a: Tensor, b: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return squared Euclidean distances of ``[T, Q, D]`` and ``[T, C, D]`` as ``[T, Q, C]``.

    Args:
        a: one side of each pair.
        b: the other side.
        valid: which rows of ``b`` count, bool ``[T, C]``; distances to the others mean nothing.
            ``None`` = all.
    """
    a, b = moved_to_centre(a, b, valid)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 ab: needs no tensor [T, Q, C, D]
    cross = a @ b.transpose(1, 2)
    return a.square().sum(2)[..., None] + b.square().sum(2)[:, None] - 2 * cross
