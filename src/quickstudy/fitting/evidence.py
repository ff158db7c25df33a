"""What a support set says of its own task before any query comes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.fitting.surfaces import size_features
from quickstudy.learners.classes import class_means, class_weights
from quickstudy.learners.heads import first_copies

__all__ = ["Evidence", "gather_evidence", "held_out_features", "log_loss", "own_temperature"]

# of the logarithm of a temperature, around the deviation of the logits
_RANGE = 4.0
# examples times classes of a task that are looked at
_CELLS = 500_000
# held-out examples that the prior on it counts like
_DOUBT = 1.0
# judged examples that are enough however large the task is
_MANY = 300
# nats: one example must not rule
_LOSS = 10.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Statistics of ``T`` support sets.

    Args:
        size: features of shots, ways and how near the classes are ``[T, 6]``.
        held_out: logits of the support examples, each from a state without it ``[T, S, C]``.
        judged: bool ``[T, S]``: which rows of ``held_out`` mean something: those of classes with
            at least two examples that are not copies of each other.
        y: labels ``[T, S]``.
    """

    size: Tensor
    held_out: Tensor
    judged: Tensor
    y: Tensor

    @property
    def enough(self) -> Tensor:
        """Bool ``[T]``: at least half the examples can be judged, or hundreds, and there is a
        choice."""
        many = self.judged.sum(1)
        choice = self.held_out.isfinite().any(1).sum(1) > 1
        return ((2 * many >= self.judged.shape[1]) | (many >= _MANY)) & (many >= 2) & choice


def gather_evidence(
    seen: Examples,
    held_out: Tensor,
    *,
    n_way: int,
    most_ways: float,
    asked: Tensor | None = None,
) -> Evidence:
    """Return the statistics.

    Args:
        seen: the support as the heads see it ``[T, S, D]``.
        held_out: see :class:`Evidence`.
        n_way: number of classes ``C``.
        most_ways: see :func:`~quickstudy.fitting.surfaces.size_features`.
        asked: which examples were held out, bool ``[T, S]``; ``None`` = all.
    """
    members, present = class_weights(seen.y, seen.mask, n_way)
    counts = members.sum(1)  # [T, C]
    ways = present.sum(1)
    # copies of one example are one witness, and one shot
    label = seen.y.clamp(0, n_way - 1)
    single = seen.mask & (first_copies(seen) == torch.arange(seen.y.shape[1]))
    witnesses = torch.zeros_like(counts).scatter_add_(1, label, single.to(counts.dtype))
    # harmonic mean: the classes with few examples rule how hard a task is
    shots = ways / torch.where(present, 1 / witnesses.clamp(min=1), 0.0).sum(1).clamp(min=1e-9)
    means = F.normalize(class_means(seen.x, seen.y, seen.mask, n_way), dim=2)  # [T, C, D]
    cosine = means @ means.transpose(1, 2)  # [T, C, C]
    pair = present[:, None] & present[..., None]
    pair = pair & ~torch.eye(n_way, dtype=torch.bool, device=pair.device)
    nearest = torch.where(pair, cosine, -1.0).amax(2)  # [T, C]
    near = (nearest * present).sum(1) / ways.clamp(min=1)
    size = size_features(shots.double(), ways.double(), most_ways=most_ways)
    judged = seen.mask & (witnesses.gather(1, label) > 1)
    if asked is not None:
        judged = judged & asked
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


def own_temperature(held_out: Tensor, y: Tensor, judged: Tensor) -> Tensor:
    """Return the temperature with the least log loss on each task's held-out examples ``[T]``.

    In doubt it is the deviation of the logits: a prior on its logarithm around that counts like a
    few examples. Tasks without a judged example have 1, or the deviation if there is one.

    Args:
        held_out: logits ``[T, S, C]``.
        y: labels ``[T, S]``.
        judged: which rows count, bool ``[T, S]``.
    """
    held_out, y, judged = _some_rows(held_out, y, judged)
    logits = held_out.double()
    finite = logits.isfinite() & judged[..., None]
    count = finite.sum((1, 2)).clamp(min=1)
    values = torch.where(finite, logits, 0.0)
    mean = values.sum((1, 2)) / count
    squares = torch.where(finite, logits - mean[:, None, None], 0.0).square().sum((1, 2))
    unit = (squares / count).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    rows = judged & held_out.isfinite().any(2)
    # rows that do not count have any finite logits
    logits = torch.where(rows[..., None], logits, 0.0)

    def cost(step: Tensor) -> Tensor:
        """Return the cost at these logarithms ``[T]``, around that of the unit."""
        losses = log_loss(logits, y, unit * step.exp()).clamp(max=_LOSS)
        return torch.where(rows, losses, 0.0).sum(1) + _DOUBT * step.square()

    best = torch.zeros_like(unit)
    reach = _RANGE
    for points in (17, 5, 5, 5):  # each time between the neighbours of the best
        around = torch.linspace(-reach, reach, points, dtype=torch.float64)
        places = best[:, None] + around  # [T, points]
        costs = torch.stack([cost(place) for place in places.T], 1)
        best = places.gather(1, costs.argmin(1, keepdim=True))[:, 0]
        reach = 2 * reach / (points - 1)
    return unit * best.exp()


def _some_rows(held_out: Tensor, y: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return every so many judged rows of a large task: some hundred say as much as all."""
    if len(judged) == 1:
        rows = judged[0].nonzero()[:, 0]
        rows = rows[:: max(1, -(-len(rows) * held_out.shape[2] // _CELLS))]
        if len(rows):
            return held_out[:, rows], y[:, rows], judged[:, rows]
    return held_out, y, judged


def held_out_features(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Return ``size`` and what the held-out examples say ``[T, 14]``, and the logarithm of their
    own temperature ``[T]``.

    At that temperature, so that nothing depends on the unit of a head's logits: log loss, accuracy,
    confidence, and the temperature in deviations of the logits; each also times the logarithm of
    the shots.

    Args:
        evidence: of ``T`` tasks.
    """
    held_out, y, judged = _some_rows(evidence.held_out, evidence.y, evidence.judged)
    temperature = own_temperature(held_out, y, judged)
    logits = held_out.double() / temperature[:, None, None]
    log_p = logits.masked_fill(~judged[..., None], 0).log_softmax(2)
    count = judged.sum(1).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(judged, values, 0.0).sum(1) / count

    loss = mean((-log_p.gather(2, y[..., None])[..., 0]).clamp(max=_LOSS))
    right = mean((log_p.argmax(2) == y).double())
    sure = mean(log_p.amax(2).exp())
    # a share of few examples is drawn towards the middle
    right = (right * count + 0.5) / (count + 1)
    spread = mean(torch.where(log_p.isfinite(), log_p, 0.0).std(2, correction=0))
    found = [loss.clamp(min=1e-3).log(), torch.logit(right), sure, spread.clamp(min=1e-3).log()]
    features = torch.stack(found, 1)
    return (
        torch.cat([evidence.size, features, features * evidence.size[:, :1]], 1),
        temperature.log(),
    )
