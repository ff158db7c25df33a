"""Which of a prior's sources a task resembles, if any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.fitting.one_shot import ByWays
from quickstudy.fitting.space import unit_rows

__all__ = ["KnownSource", "familiar_source"]

# deviations below what is usual in a source at which a task still belongs to it: one in forty tasks
# of a source itself lies below
_USUAL = -2.0


@dataclass(frozen=True, slots=True)
class KnownSource:
    """Where a source lies among embeddings.

    A task resembles a source if its examples point as much towards the middle of the source as
    those of tasks that are drawn from it.

    Args:
        name: of the source.
        centre: mean of its class means, of embeddings of length 1 ``[D]``; itself of length 1.
        mean: over its tasks, of the mean cosine of an example and the centre.
        deviation: of the same.
    """

    name: str
    centre: Tensor
    mean: ByWays
    deviation: ByWays


def familiar_source(known: Sequence[KnownSource], z: Tensor, y: Tensor) -> str | None:
    """Return the name of the source that a task resembles most; ``None`` if it resembles none.

    Args:
        known: the sources of a prior.
        z: embeddings of the support ``[S, D]``.
        y: labels ``[S]``.
    """
    if not known:
        return None
    z = unit_rows(z.float())
    classes, index, counts = torch.unique(y, return_inverse=True, return_counts=True)
    weights = 1 / counts[index].float() / len(classes)  # every class weighs the same
    best, found = _USUAL, None
    for source in known:
        cosine = float((weights * (z @ source.centre.to(z))).sum())
        usual, deviation = source.mean(len(classes)), source.deviation(len(classes))
        score = (cosine - usual) / max(deviation, 1e-6)
        if score > best:
            best, found = score, source.name
    return found
