"""Calibration: a head's answers in auxiliary tasks predict how good its answers in a new task are.

The predictions are surfaces (see :mod:`~quickstudy.fitting.surfaces`): temperature, expected
accuracy, thresholds of prediction sets, and thresholds for queries of unknown classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.fitting.evidence import Evidence, held_out_features, log_loss
from quickstudy.fitting.heads import Settings
from quickstudy.fitting.prior import LEVELS, HeadPrior, OpenSetPrior
from quickstudy.fitting.surfaces import Surface, fit_surface, pinball

__all__ = ["Answers", "Strangers", "fit_head_prior", "fit_open_set"]


@dataclass(frozen=True, slots=True)
class Answers:
    """A head's answers in ``T`` auxiliary tasks of one size.

    Args:
        evidence: statistics of the support sets.
        logits: of queries ``[T, Q, C]``.
        y: labels of these queries ``[T, Q]``.
        accuracy: share of all queries answered right ``[T]``, with half an example added to the
            right and half to the wrong ones: its logit is always finite.
    """

    evidence: Evidence
    logits: Tensor
    y: Tensor
    accuracy: Tensor


def fit_head_prior(
    cells: Sequence[Answers], settings: dict[tuple[int, int], Settings]
) -> HeadPrior:
    """Fit temperature, expected accuracy and prediction sets of one head.

    Each gets two surfaces. The first takes the size of a task. The second also takes statistics of
    its held-out support examples, and is fitted on the sizes of which every task held enough out.

    Every second task fits the conformal thresholds and the others correct them, so that coverage
    is right on tasks that the fit has not seen.

    Args:
        cells: one entry for each size.
        settings: the head's settings by ways and shots, stored unchanged.
    """
    sizes = [c.evidence.size for c in cells]
    # logits of unit deviation are a natural first guess for calibrated ones
    deviation = torch.cat([c.logits[c.logits.isfinite()] for c in cells]).std().clamp(min=1e-3)
    by_size = _fit_temperature(cells, sizes, float(deviation.log()))

    rich = [c for c in cells if bool(c.evidence.enough.all())]
    held_out = [held_out_features(c.evidence) for c in rich]
    features = [f for f, _ in held_out]
    own = [log_temperature for _, log_temperature in held_out]
    by_support = _fit_temperature(rich, features, 0.0, own)

    scores_1 = [_scores(c, by_size(f)) for c, f in zip(cells, sizes, strict=True)]
    scores_2 = [_scores(c, t + by_support(f)) for c, f, t in zip(rich, features, own, strict=True)]
    accuracy_1, spread_1 = _fit_accuracy(cells, sizes)
    accuracy_2, spread_2 = _fit_accuracy(rich, features)
    return HeadPrior(
        settings=settings,
        temperature=(by_size, by_support),
        accuracy=(accuracy_1, accuracy_2),
        spread=(spread_1, spread_2),
        sets=(
            {q: fit_level(sizes, scores_1, q) for q in LEVELS},
            {q: fit_level(features, scores_2, q) for q in LEVELS},
        ),
    )


def _scores(cell: Answers, log_temperature: Tensor) -> Tensor:
    """Return ``-log p`` of the true class of each query ``[T, Q]``, given ``[T]``."""
    return log_loss(cell.logits, cell.y, log_temperature.exp())


def _fit_temperature(
    cells: Sequence[Answers],
    features: list[Tensor],
    start: float,
    own: Sequence[Tensor] | None = None,
) -> Surface:
    """Return the surface of log temperature with the least log loss; every size weighs the same.

    Args:
        cells: the tasks, by size.
        features: inputs of the surface, by size ``[T, F]``.
        start: the constant to begin with.
        own: log temperatures of each task's held-out examples, by size ``[T]``. The surface is
            then what has to be added to them.
    """
    base = torch.zeros(1) if own is None else torch.cat(list(own))

    def loss(values: Tensor) -> Tensor:
        parts = (values + base).split([len(c.y) for c in cells])
        # clamped: a step of the optimiser may try temperatures whose logits overflow
        losses = [_scores(c, v.clamp(-12, 12)).mean() for c, v in zip(cells, parts, strict=True)]
        return torch.stack(losses).mean()

    return fit_surface(torch.cat(features), loss, start=start)


def _fit_accuracy(
    cells: Sequence[Answers], features: list[Tensor]
) -> tuple[Surface, tuple[float, float]]:
    """Return the surface of the accuracy's logit, and the 5 % and 95 % quantiles of its error.

    The error is the observed logit minus the predicted one, on tasks that the fit has not seen (two
    folds).
    """
    x, target = torch.cat(features), torch.cat([c.accuracy for c in cells])

    def fit(rows: Tensor) -> Surface:
        y = target[rows]

        def loss(v: Tensor) -> Tensor:
            return torch.nn.functional.binary_cross_entropy_with_logits(v, y)

        return fit_surface(x[rows], loss)

    even = torch.arange(len(x)) % 2 == 0
    error = torch.cat([torch.logit(target[~rows]) - fit(rows)(x[~rows]) for rows in (even, ~even)])
    low, high = torch.quantile(error, torch.tensor([0.05, 0.95], dtype=error.dtype)).tolist()
    return fit(torch.ones(len(x), dtype=torch.bool)), (low, high)


def fit_level(features: list[Tensor], scores: list[Tensor], level: float) -> Surface:
    """Return the ``level`` quantile of a task's scores as a surface, conformally corrected.

    The quantile is predicted for each task (Fisch et al. 2021, "Few-shot conformal prediction with
    auxiliary tasks", section 4.2) and corrected by a constant, so that on other auxiliary tasks the
    mean coverage is ``level`` (their section 4.3).

    *Difference from the paper*: the prediction is a linear quantile regression on the size of the
    task and on statistics of its held-out support examples, not a set transformer.

    Args:
        features: inputs of the surface, for each size ``[T, F]``.
        scores: of queries, such as ``-log p`` of the true class, for each size ``[T, Q]``.
        level: in (0, 1).
    """
    # even tasks fit the surface, odd ones correct it
    fit_on = [torch.arange(len(f)) % 2 == 0 for f in features]

    def loss(values: Tensor) -> Tensor:
        parts = values.split([int(rows.sum()) for rows in fit_on])
        losses = [
            pinball(s[rows] - v[:, None], level).mean()
            for s, v, rows in zip(scores, parts, fit_on, strict=True)
        ]
        return torch.stack(losses).mean()

    start = float(torch.cat([s.flatten() for s in scores]).quantile(level)) if scores else 0.0
    chosen = [f[rows] for f, rows in zip(features, fit_on, strict=True)]
    surface = fit_surface(torch.cat(chosen), loss, start=start)
    residuals, weights = [], []
    for f, s, rows in zip(features, scores, fit_on, strict=True):
        residual = (s[~rows] - surface(f[~rows])[:, None]).flatten()
        residuals.append(residual)
        # every size weighs the same, however many queries it has
        weights.append(torch.full_like(residual, 1 / max(len(residual), 1)))
    # the correction that puts a share of `level` of the scores below the surface
    return surface.shifted(_weighted_quantile(torch.cat(residuals), torch.cat(weights), level))


def _weighted_quantile(values: Tensor, weights: Tensor, level: float) -> float:
    """Return the smallest value at or below which a share ``level`` of the weight lies."""
    order = values.argsort()
    share = weights[order].cumsum(0) / weights.sum()
    index = int(torch.searchsorted(share, torch.tensor(level, dtype=share.dtype)))
    return float(values[order][min(index, len(values) - 1)])


@dataclass(frozen=True, slots=True)
class Strangers:
    """Distances of queries from their support, in ``T`` auxiliary tasks of one size.

    The four distances are those of :func:`~quickstudy.fitting.novelty.distances`.

    Args:
        size: size features of the tasks ``[T, F]``.
        known: distances of queries of the task's classes ``[T, Q, 4]``.
        strangers: distances of examples of other classes ``[T, U, 4]``.
    """

    size: Tensor
    known: Tensor
    strangers: Tensor


def fit_open_set(cells: Sequence[Strangers]) -> OpenSetPrior:
    """Return the score that separates strangers from known queries, and its thresholds.

    The score is a logistic regression on the distances and the size of the task. Of every size, the
    known queries weigh as much as the strangers.

    Args:
        cells: one entry for each size.
    """

    def joined(distance: Tensor, size: Tensor) -> Tensor:
        wide = size[:, None].expand(-1, distance.shape[1], -1)
        return torch.cat([distance.double(), wide], 2)

    known = [joined(c.known, c.size) for c in cells]
    others = [joined(c.strangers, c.size) for c in cells]
    x = torch.cat([t.flatten(0, 1) for pair in zip(known, others, strict=True) for t in pair])
    target, weight = [], []
    for a, b in zip(known, others, strict=True):
        for label, t in ((0.0, a), (1.0, b)):
            n = t.shape[0] * t.shape[1]
            target.append(torch.full((n,), label).double())
            weight.append(torch.full((n,), 1.0 / n).double())
    y, w = torch.cat(target), torch.cat(weight)
    w = w / w.sum()

    def loss(v: Tensor) -> Tensor:
        each = torch.nn.functional.binary_cross_entropy_with_logits(v, y, reduction="none")
        return (w * each).sum()

    score = fit_surface(x, loss)
    known_scores = [score(t.flatten(0, 1)).unflatten(0, t.shape[:2]) for t in known]
    sizes = [c.size for c in cells]
    return OpenSetPrior(score, {q: fit_level(sizes, known_scores, q) for q in LEVELS})
