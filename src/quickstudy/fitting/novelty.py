"""Distances of a query from the support of a task: large ones speak for an unknown class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.classes import class_weights

__all__ = ["distances", "nearest_cosine"]

# examples whose mean cosine is one of the distances
_NEIGHBOURS = 3


def distances(seen: Examples, x: Tensor, *, n_way: int) -> Tensor:
    """Return four numbers that separate queries of unknown classes from known ones ``[T, Q, 4]``.

    One minus the cosine to the nearest example, one minus the mean cosine to the three nearest
    examples, one minus the cosine to the nearest prototype, and by how much the cosine to the
    nearest prototype exceeds that to the second nearest. The first three are large for a stranger,
    the last is small.

    Li, Wang et al. (2022), arXiv:2206.09236, found the distance to the nearest neighbours with a
    prototype head to be hard to beat in few-shot open-set recognition.

    Args:
        seen: the support as the heads see it ``[T, S, D]``.
        x: queries as the heads see them ``[T, Q, D]``.
        n_way: number of classes ``C``.
    """
    z = F.normalize(seen.x.masked_fill(~seen.mask[..., None], 0), dim=2)
    x = F.normalize(x, dim=2)
    cosine = (x @ z.transpose(1, 2)).masked_fill(~seen.mask[:, None], -1.0)  # [T, Q, S]
    k = min(_NEIGHBOURS, cosine.shape[2])
    nearest = cosine.topk(k, dim=2).values  # [T, Q, k]
    members, present = class_weights(seen.y, seen.mask, n_way)
    means = F.normalize(members.to(z.dtype).transpose(1, 2) @ z, dim=2)  # [T, C, D]
    to_class = (x @ means.transpose(1, 2)).masked_fill(~present[:, None], -1.0)  # [T, Q, C]
    top = to_class.topk(min(2, n_way), dim=2).values
    lead = top[..., 0] - top[..., 1] if top.shape[2] > 1 else torch.zeros_like(top[..., 0])
    return torch.stack([1 - nearest[..., 0], 1 - nearest.mean(2), 1 - top[..., 0], lead], 2)


def nearest_cosine(support: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    """Return one minus the cosine to the nearest support example ``[T, Q]``.

    This is the detector of unknown classes that needs no prior.

    Args:
        support: embeddings ``[T, S, D]``.
        mask: ``False`` marks padding, bool ``[T, S]``.
        x: queries ``[T, Q, D]``.
    """
    cosine = F.normalize(x, dim=2) @ F.normalize(support, dim=2).transpose(1, 2)
    return 1 - cosine.masked_fill(~mask[:, None], -1.0).amax(2)
