"""Statistics of a support set: how hard its task is, judged without any query.

Support examples are held out in turn: a head that has not seen them answers them like queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.classes import class_weights
from quickstudy.learners.heads import held_out_together

__all__ = ["Evidence", "gather_evidence", "log_loss", "own_temperature"]

# search range of log temperature around the logits' standard deviation
_LOG_TEMPERATURE_RANGE = 4.0
# weight of the penalty that holds log temperature near that deviation, in held-out examples
_TEMPERATURE_PENALTY = 0.5
# logits of one large task (examples times classes) that statistics are computed from, at most
_MOST_LOGITS = 500_000
# judged examples that are enough however large the task is
_ENOUGH_JUDGED = 300
# cap on one example's loss, in nats, so that no outlier dominates
_LOSS_CAP = 10.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Statistics of ``T`` support sets.

    Args:
        shots: examples per class, copies and groups counted once: the harmonic mean over classes
            ``[T]``.
        ways: classes with examples ``[T]``.
        held_out: logits of the support examples, each from a state without it ``[T, S, C]``.
        judged: which rows of ``held_out`` are meaningful, bool ``[T, S]``: those that were held out
            and whose class has at least two examples that are not held out together.
        y: labels ``[T, S]``.
        answers: how many judged examples are not held out together: copies and members of a group
            count once ``[T]``.
    """

    shots: Tensor
    ways: Tensor
    held_out: Tensor
    judged: Tensor
    y: Tensor
    answers: Tensor

    @property
    def enough(self) -> Tensor:
        """Whether the held-out examples say enough to be used, bool ``[T]``.

        There must be at least two classes to choose from, and at least two judged examples that are
        half of the support or 300.
        """
        n_judged = self.judged.sum(1)
        several = self.held_out.isfinite().any(1).sum(1) > 1
        large_part = (2 * n_judged >= self.judged.shape[1]) | (n_judged >= _ENOUGH_JUDGED)
        return large_part & (n_judged >= 2) & several


def gather_evidence(
    seen: Examples,
    held_out: Tensor,
    *,
    n_way: int,
    asked: Tensor | None = None,
    groups: Tensor | None = None,
) -> Evidence:
    """Return the statistics of support sets whose held-out logits are known.

    Args:
        seen: the support as the heads see it ``[T, S, D]``.
        held_out: logits of each example without it ``[T, S, C]``, see :class:`Evidence`.
        n_way: number of classes ``C``.
        asked: which examples were held out, bool ``[T, S]``; ``None`` = all.
        groups: number of the group that each example belongs to ``[T, S]``; ``None`` = only copies
            belong together.
    """
    members, present = class_weights(seen.y, seen.mask, n_way)
    counts = members.sum(1)  # [T, C]
    ways = present.sum(1)
    # several copies of one example, or frames of one film, count as one shot
    label = seen.y.clamp(0, n_way - 1)
    first = held_out_together(seen, groups)
    named = torch.where(seen.mask, first * n_way + label, -1)  # a group may be of several classes
    ordered, order = named.sort(dim=1, stable=True)
    new = torch.ones_like(seen.mask)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    once = torch.zeros_like(new).scatter(1, order, new) & seen.mask
    distinct = torch.zeros_like(counts).scatter_add_(1, label, once.to(counts.dtype))
    # harmonic mean: the classes with few examples decide how hard a task is
    shots = ways / torch.where(present, 1 / distinct.clamp(min=1), 0.0).sum(1).clamp(min=1e-9)
    # an example that is alone in its class cannot be answered by a head that never saw the class
    judged = seen.mask & (distinct.gather(1, label) > 1)
    if groups is not None:
        # groups of several classes may leave a class empty: its logits are minus infinity then
        judged = judged & held_out.gather(2, label[..., None])[..., 0].isfinite()
    if asked is not None:
        judged = judged & asked
    own = torch.zeros_like(judged).scatter_reduce(1, first, judged, "amax")
    return Evidence(shots.double(), ways.double(), held_out, judged, seen.y, own.sum(1))


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

    Log temperature is searched on a grid around the logarithm of the logits' standard deviation,
    and its squared distance from there is penalised: a few examples alone would often ask for a
    temperature near 0 or infinity. Tasks without a judged example get 1.

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
    deviation = (squares / count).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    rows = judged & held_out.isfinite().any(2)
    # logits of rows that do not count may be anything; zeros keep their (unused) losses finite
    logits = torch.where(rows[..., None], logits, 0.0)

    # temperature = deviation * exp(step)
    def cost(step: Tensor) -> Tensor:
        """Return the penalised loss of each task at its step ``[T]``."""
        losses = log_loss(logits, y, deviation * step.exp()).clamp(max=_LOSS_CAP)
        return torch.where(rows, losses, 0.0).sum(1) + _TEMPERATURE_PENALTY * step.square()

    best = torch.zeros_like(deviation)
    reach = _LOG_TEMPERATURE_RANGE
    for points in (17, 5, 5, 5):  # each finer grid spans the two neighbours of the best point
        offsets = torch.linspace(-reach, reach, points, dtype=torch.float64)
        steps = best[:, None] + offsets  # [T, points]
        costs = torch.stack([cost(step) for step in steps.T], 1)
        best = steps.gather(1, costs.argmin(1, keepdim=True))[:, 0]
        reach = 2 * reach / (points - 1)
    return deviation * best.exp()


def _some_rows(held_out: Tensor, y: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return evenly spaced judged rows of one large task, all rows of several or smaller ones.

    A few hundred rows give statistics as good as all do.
    """
    if len(judged) == 1:
        rows = judged[0].nonzero()[:, 0]
        rows = rows[:: max(1, -(-len(rows) * held_out.shape[2] // _MOST_LOGITS))]
        if len(rows):
            return held_out[:, rows], y[:, rows], judged[:, rows]
    return held_out, y, judged
