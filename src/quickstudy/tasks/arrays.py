"""Pools from arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from quickstudy.core import DataError
from quickstudy.core.values import is_missing
from quickstudy.tasks.pool import Pool

__all__ = ["pool_from_arrays"]


def pool_from_arrays(X: Any, y: Any, *, name: str = "arrays") -> Pool:
    """Return the pool of arrays in memory.

    Args:
        X: float vectors ``[M, D]``, or images ``[M, H, W]``, ``[M, H, W, C]`` or ``[M, C, H, W]``
            with ``C`` 1 or 3: whole numbers from 0 to 255, or floats from 0 to 1.
        y: labels ``[M]``, whole numbers or texts.
        name: for reports.

    Returns:
        Pool with ``x`` float32 ``[M, D]`` or uint8 ``[M, C, H, W]``.

    Raises:
        DataError: if the shapes or values are not these.
    """
    try:
        x, labels = np.asarray(X), np.asarray(y)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{name}: X and y must be arrays ({error}). Use np.asarray.") from error
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 3, 4):
        raise DataError(
            f"{name}: X must hold numbers, vectors [M, D] or images [M, H, W(, C)]; got "
            f"{x.dtype} {list(x.shape)}. Convert it."
        )
    if labels.ndim != 1 or len(labels) != len(x) or labels.dtype.kind not in "iubUSO":
        raise DataError(
            f"{name}: y must be one whole number or text for each of the {len(x)} rows of X; got "
            f"{labels.dtype} {list(labels.shape)}. Convert it."
        )
    values = labels.tolist()
    if any(is_missing(value) for value in values):
        raise DataError(f"{name}: row {[is_missing(v) for v in values].index(True)} has no label.")
    kinds = {type(value) for value in values}
    if not kinds <= {int, bool, str, bytes}:
        raise DataError(f"{name}: labels must be whole numbers or texts; got {labels.dtype}.")
    data = x.astype(np.float32) if x.ndim == 2 else _image_array(x, name)
    return Pool.build(torch.from_numpy(np.ascontiguousarray(data)), values, name=name)


def _image_array(x: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Return images as uint8 ``[M, C, H, W]``."""
    if x.ndim == 3:
        x = x[:, None]  # [M, H, W] -> [M, 1, H, W]
    elif x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.transpose(0, 3, 1, 2)  # [M, H, W, C] -> [M, C, H, W]
    if x.shape[1] not in (1, 3):
        raise DataError(f"{name}: images have 1 or 3 channels; got {list(x.shape[1:])}.")
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    most = 1.0 if x.dtype.kind == "f" and high <= 1 else 255.0
    if not (low >= 0 and high <= most):  # also of NaN
        raise DataError(
            f"{name}: pixels must be from 0 to 255, or floats from 0 to 1; they are from {low:g} "
            f"to {high:g}. Undo their normalisation."
        )
    return np.rint(x * (255.0 / most)).astype(np.uint8)
