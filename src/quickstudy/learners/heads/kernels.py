"""The Gaussian kernel, for heads that are linear in its features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core import ConfigError
from quickstudy.learners.classes import squared_distance

__all__ = ["check_width", "gaussian_kernel", "gaussian_kernel_less_one"]


def gaussian_kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Return ``exp(-|a - b|^2 / (2 width))``: ``[T, N, D]`` and ``[T, S, D] -> [T, N, S]``.

    Args:
        a: inputs ``[T, N, D]``.
        b: inputs ``[T, S, D]``.
        width: in squared units of the inputs; on unit vectors the kernel is ``exp((cosine - 1) /
            width)``.
    """
    # rounding makes squared distances of equal points slightly negative
    return torch.exp(-squared_distance(a, b).clamp(min=0) / (2 * width))


def gaussian_kernel_less_one(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Return :func:`gaussian_kernel` minus 1, precise where all points lie close together.

    There every value is nearly 1, and what tells the points apart is in the last digits. It serves
    where the values are centred afterwards, so that the 1 would drop out.

    Args:
        a: inputs ``[T, N, D]``.
        b: inputs ``[T, S, D]``.
        width: see :func:`gaussian_kernel`.
    """
    return torch.expm1(-squared_distance(a, b).clamp(min=0) / (2 * width))


def check_width(width: float | None) -> None:
    """Raise :class:`ConfigError` if the width is neither ``None`` nor positive."""
    if width is not None and not 0 < width < math.inf:
        raise ConfigError(f"kernel_width must be positive, or None for linear; got {width}.")
