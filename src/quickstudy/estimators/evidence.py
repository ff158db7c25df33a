"""What a support set says of its own task before any query comes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.estimators.surfaces import size_features
from quickstudy.learners.metric import class_weights

__all__ = ["Evidence", "gather_evidence", "held_out_features", "log_loss"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Statistics of ``T`` support sets.

    Args:
        size: features of shots, ways and how near the classes are ``[T, 6]``.
        held_out: logits of the support examples, each from a state without it ``[T, S, C]``.
        judged: bool ``[T, S]``: which rows of ``held_out`` mean something: those of classes with
            at least two examples.
        y: labels ``[T, S]``.
    """

    size: Tensor
    held_out: Tensor
    judged: Tensor
    y: Tensor

    @property
    def enough(self) -> Tensor:
        """Bool ``[T]``: at least half the examples can be judged, and there is a choice."""
        many = self.judged.sum(1)
        choice = self.held_out.isfinite().any(1).sum(1) > 1
        return (2 * many >= self.judged.shape[1]) & (many >= 2) & choice


def gather_evidence(seen: Examples, held_out: Tensor, *, n_way: int, most_ways: float) -> Evidence:
    """Return the statistics.

    Args:
        seen: the support as the heads see it ``[T, S, D]``.
        held_out: see :class:`Evidence`.
        n_way: number of classes ``C``.
        most_ways: see :func:`~quickstudy.estimators.surfaces.size_features`.
    """
    members, present = class_weights(seen.y, seen.mask, n_way)
    counts = members.sum(1)  # [T, C]
    ways = present.sum(1)
    # harmonic mean: the classes with few examples rule how hard a task is
    shots = ways / torch.where(present, 1 / counts.clamp(min=1), 0.0).sum(1).clamp(min=1e-9)
    x = seen.x.masked_fill(~seen.mask[..., None], 0)
    means = members.to(x.dtype).transpose(1, 2) @ x  # [T, C, D]
    cosine = F.normalize(means, dim=2) @ F.normalize(means, dim=2).transpose(1, 2)  # [T, C, C]
    pair = present[:, None] & present[..., None]
    pair = pair & ~torch.eye(n_way, dtype=torch.bool, device=pair.device)
    nearest = torch.where(pair, cosine, -1.0).amax(2)  # [T, C]
    near = (nearest * present).sum(1) / ways.clamp(min=1)
    size = size_features(shots.double(), ways.double(), most_ways=most_ways)
    own = counts.gather(1, seen.y.clamp(0, n_way - 1))
    judged = seen.mask & (own > 1)
    return Evidence(torch.cat([size, near[:, None].double()], 1), held_out, judged, seen.y)


def log_loss(logits: Tensor, y: Tensor, temperature: Tensor) -> Tensor:
    """Return the cross-entropy of each example, in nats ``[T, N]``.

    Args:
        logits: ``[T, N, C]``.
        y: labels ``[T, N]``.
        temperature: ``[T]``.
    """
    scaled = logits.double() / temperature[:, None, None]
    return -scaled.log_softmax(2).gather(2, y[..., None])[..., 0]


def held_out_features(evidence: Evidence, temperature: Tensor) -> Tensor:
    """Return ``size`` and what the held-out examples say ``[T, 12]``: log loss, accuracy and
    confidence, each also times the logarithm of the shots.

    Args:
        evidence: of ``T`` tasks.
        temperature: by size alone ``[T]``.
    """
    logits = evidence.held_out.double() / temperature[:, None, None]
    log_p = logits.masked_fill(~evidence.judged[..., None], 0).log_softmax(2)
    count = evidence.judged.sum(1).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(evidence.judged, values, 0.0).sum(1) / count

    loss = mean((-log_p.gather(2, evidence.y[..., None])[..., 0]).clamp(max=10))
    right = mean((log_p.argmax(2) == evidence.y).double())
    sure = mean(log_p.amax(2).exp())
    # a share of few examples is drawn towards the middle
    right = (right * count + 0.5) / (count + 1)
    found = torch.stack([loss.clamp(min=1e-3).log(), torch.logit(right), sure], 1)
    return torch.cat([evidence.size, found, found * evidence.size[:, :1]], 1)
