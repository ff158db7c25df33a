"""How far a query is from everything a task has shown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.classes import class_weights

__all__ = ["distances", "nearest_cosine"]

_NEIGHBOURS = 3


def distances(seen: Examples, x: Tensor, *, n_way: int) -> Tensor:
    """Return what tells strangers from acquaintances ``[T, Q, 4]``: one minus the cosine to the
    nearest example, the mean of the three nearest, the nearest prototype, and the lead of the
    nearest prototype over the next.

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
    near = cosine.topk(k, dim=2).values
    members, present = class_weights(seen.y, seen.mask, n_way)
    means = F.normalize(members.to(z.dtype).transpose(1, 2) @ z, dim=2)  # [T, C, D]
    classes = (x @ means.transpose(1, 2)).masked_fill(~present[:, None], -1.0)
    first = classes.topk(min(2, n_way), dim=2).values
    lead = first[..., 0] - first[..., 1] if first.shape[2] > 1 else torch.zeros_like(first[..., 0])
    return torch.stack([1 - near[..., 0], 1 - near.mean(2), 1 - first[..., 0], lead], 2)


def nearest_cosine(support: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    """Return one minus the cosine to the nearest support example ``[T, Q]``: the plain detector.

    Args:
        support: embeddings ``[T, S, D]``.
        mask: bool ``[T, S]``.
        x: queries ``[T, Q, D]``.
    """
    cosine = F.normalize(x, dim=2) @ F.normalize(support, dim=2).transpose(1, 2)
    return 1 - cosine.masked_fill(~mask[:, None], -1.0).amax(2)
