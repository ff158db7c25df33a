"""Pictures that are almost the same: compressed, resized or brightened copies.

Two pictures are compared by the cosine of their pixels after the mean is subtracted, so brightness
and contrast do not matter. They are near-duplicates if the cosine is at least :data:`FINE` at 32
pixels a side, and at least :data:`COARSE` at 8. The thresholds were chosen on training splits, see
``docs/checks.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COARSE", "COPY", "FINE", "SAME", "copies_inside", "near_pairs", "standardised"]

COARSE, FINE = 0.994, 0.97
"""Least cosine of near-duplicates at 8 and at 32 pixels a side."""
SAME = 0.99
"""From this cosine on, two pictures of two splits are one picture, not two that look alike."""
COPY = 0.995
"""From this cosine on, two pictures of one split are one picture, compressed or resized."""
_COARSE_SIDE, _FINE_SIDE = 8, 32
_BLOCK = 1024  # rows compared at once
_ROUNDING = 1e-4  # of projections in single precision
_MOST_CANDIDATES = 100_000  # a data set of copies of one picture must not fill the memory


def standardised(x: Tensor, side: int | None = None) -> Tensor:
    """Return examples as unit vectors of mean 0, ``[M, ...] -> [M, D]``.

    Args:
        x: examples ``[M, ...]``.
        side: images ``[M, channels, height, width]`` that are larger are reduced to this many
            pixels a side; ``None`` = none are.
    """
    parts = []
    for piece in x.split(_BLOCK):
        z = piece.float()
        if side is not None and z.ndim == 4 and max(z.shape[2:]) > side:
            z = F.interpolate(z, (side, side), mode="area")
        z = z.flatten(1)
        parts.append(F.normalize(z - z.mean(1, keepdim=True), dim=1))
    return torch.cat(parts)


def near_pairs(
    first: Tensor,
    first_y: Tensor,
    second: Tensor | None = None,
    second_y: Tensor | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return near-duplicates of different classes: one of each set, or both of the first set.

    Args:
        first: images ``[M, channels, height, width]``.
        first_y: their classes ``[M]``, with the same numbers in both sets.
        second: other images, or ``None`` to compare the first with each other.
        second_y: their classes.
        progress: called with the number of rows done.

    Returns:
        Rows ``[P, 2]`` and their cosines at 32 pixels ``[P]``, the most alike first. Identical
        pairs are among them.
    """
    # 8 pixels a side are cheap enough for all pairs; only what passes is compared at 32
    alone = second is None or second_y is None
    other, other_y = (first, first_y) if second is None or second_y is None else (second, second_y)
    found = list(_candidates(first, first_y, other, other_y, progress))
    pairs = torch.cat([torch.empty(0, 2, dtype=torch.int64), *found])
    if alone:
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[(pairs[:, 0] * (len(other) + 1) + pairs[:, 1]).argsort()]
    cosines = [
        (standardised(first[a], _FINE_SIDE) * standardised(other[b], _FINE_SIDE)).sum(1)
        for a, b in (piece.T for piece in pairs[:_MOST_CANDIDATES].split(_BLOCK))
        if len(a)
    ]
    fine = torch.cat([torch.empty(0), *cosines])
    order = fine.argsort(descending=True, stable=True)
    order = order[fine[order] >= FINE]
    return pairs[order], fine[order]


def copies_inside(x: Tensor) -> Tensor:
    """Return pairs of rows ``[P, 2]`` that are one picture, identical ones among them.

    Args:
        x: images of one class ``[n, channels, height, width]``. Rows are compared inside blocks of
            1,024, so a pair of two blocks is not found.
    """
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for begin in range(0, len(x), _BLOCK):
        rows = x[begin : begin + _BLOCK]
        alike = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
        for side in (_COARSE_SIDE, _FINE_SIDE):
            z = standardised(rows, side)
            alike &= z @ z.T >= COPY
        found.append(alike.nonzero() + begin)
    return torch.cat(found)


def _candidates(
    first: Tensor,
    first_y: Tensor,
    other: Tensor,
    other_y: Tensor,
    progress: Callable[[int], None] | None,
) -> Iterator[Tensor]:
    """Yield pairs of different classes that are alike at 8 pixels a side.

    Unit vectors with a cosine of ``c`` or more lie at most ``sqrt(2 - 2 c)`` apart, and so do their
    projections on any direction. So rows are sorted by their projection on the direction in which
    they differ most, and only neighbours are compared: the same pairs, many times sooner.
    """
    left = standardised(first, _COARSE_SIDE)
    right = left if other is first else standardised(other, _COARSE_SIDE)
    direction = torch.linalg.eigh(left.T @ left).eigenvectors[:, -1]
    (left_at, left_order), (right_at, right_order) = ((z @ direction).sort() for z in (left, right))
    left, right = left[left_order], right[right_order]
    reach = math.sqrt(2 - 2 * COARSE) + _ROUNDING
    found = 0
    for begin in range(0, len(left), _BLOCK):
        rows = slice(begin, begin + _BLOCK)
        low = int(torch.searchsorted(right_at, left_at[rows][0] - reach))
        high = int(torch.searchsorted(right_at, left_at[rows][-1] + reach, right=True))
        cosines = left[rows] @ right[low:high].T  # [B, M']
        if progress is not None:
            progress(len(left[rows]))
        if not cosines.numel():
            continue
        some = (cosines.amax(1) >= COARSE).nonzero()[:, 0]
        at = (cosines[some] >= COARSE).nonzero()
        pairs = torch.stack([left_order[rows][some[at[:, 0]]], right_order[low + at[:, 1]]], 1)
        pairs = pairs[first_y[pairs[:, 0]] != other_y[pairs[:, 1]]]
        found += len(pairs)
        yield pairs
        if found > 2 * _MOST_CANDIDATES:
            return
