"""From auxiliary tasks that a head has learned to what to expect of it on the next."""

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
    """What a head said in ``T`` auxiliary tasks of one size.

    Args:
        evidence: of the supports.
        logits: of queries ``[T, Q, C]``.
        y: their labels ``[T, Q]``.
        accuracy: on all queries, drawn towards the middle by half an example ``[T]``.
    """

    evidence: Evidence
    logits: Tensor
    y: Tensor
    accuracy: Tensor


def fit_head_prior(
    cells: Sequence[Answers], settings: dict[tuple[int, int], Settings]
) -> HeadPrior:
    """Return what these tasks say of tasks to come.

    Every second task is for fitting the conformal thresholds, the others for correcting them, so
    that coverage is right on tasks that the fit has not seen.

    Args:
        cells: one entry for each size.
        settings: numbers of the head by ways and shots, kept as they are.
    """
    unit = torch.cat([c.logits[c.logits.isfinite()] for c in cells]).std().clamp(min=1e-3)
    by_size = _fit_temperature(cells, [c.evidence.size for c in cells], float(unit.log()))
    both = [held_out_features(c.evidence) for c in cells]
    usable = [bool(c.evidence.enough.all()) for c in cells]
    told = [c for c, ok in zip(cells, usable, strict=True) if ok]
    features = [f for (f, _), ok in zip(both, usable, strict=True) if ok]
    own = [t for (_, t), ok in zip(both, usable, strict=True) if ok]
    by_support = _fit_temperature(told, features, 0.0, own)

    plain = [_scores(c, by_size(c.evidence.size)) for c in cells]
    better = [_scores(c, t + by_support(f)) for c, f, t in zip(told, features, own, strict=True)]
    accuracy_1, spread_1 = _fit_accuracy(cells, [c.evidence.size for c in cells])
    accuracy_2, spread_2 = _fit_accuracy(told, features)
    return HeadPrior(
        settings=settings,
        temperature=(by_size, by_support),
        accuracy=(accuracy_1, accuracy_2),
        spread=(spread_1, spread_2),
        sets=(
            {q: fit_level([c.evidence.size for c in cells], plain, q) for q in LEVELS},
            {q: fit_level(features, better, q) for q in LEVELS},
        ),
    )


def _scores(cell: Answers, log_temperature: Tensor) -> Tensor:
    return log_loss(cell.logits, cell.y, log_temperature.exp())


def _fit_temperature(
    cells: Sequence[Answers],
    features: list[Tensor],
    start: float,
    own: Sequence[Tensor] | None = None,
) -> Surface:
    """Return the logarithm of the temperature with the least log loss, every size weighing the
    same; with ``own``, what is added to the logarithms ``[T]`` given there."""
    base = torch.zeros(1) if own is None else torch.cat(list(own))

    def loss(values: Tensor) -> Tensor:
        parts = (values + base).split([len(c.y) for c in cells])
        losses = [_scores(c, v.clamp(-12, 12)).mean() for c, v in zip(cells, parts, strict=True)]
        return torch.stack(losses).mean()

    return fit_surface(torch.cat(features), loss, start=start)


def _fit_accuracy(
    cells: Sequence[Answers], features: list[Tensor]
) -> tuple[Surface, tuple[float, float]]:
    """Return the logit of the accuracy, and the 5 % and 95 % quantiles of what it is missed by, on
    tasks that the fit has not seen (two folds)."""
    x, target = torch.cat(features), torch.cat([c.accuracy for c in cells])

    def fit(rows: Tensor) -> Surface:
        y = target[rows]

        def loss(v: Tensor) -> Tensor:
            return torch.nn.functional.binary_cross_entropy_with_logits(v, y)

        return fit_surface(x[rows], loss)

    even = torch.arange(len(x)) % 2 == 0
    missed = torch.cat([torch.logit(target[~rows]) - fit(rows)(x[~rows]) for rows in (even, ~even)])
    low, high = torch.quantile(missed, torch.tensor([0.05, 0.95], dtype=missed.dtype)).tolist()
    return fit(torch.ones(len(x), dtype=torch.bool)), (low, high)


def fit_level(features: list[Tensor], scores: list[Tensor], level: float) -> Surface:
    """Return the ``level`` quantile of a task's scores as a surface, conformally corrected.

    The quantile is predicted for each task (Fisch et al. 2021, "Few-shot conformal prediction with
    auxiliary tasks", section 4.2) and corrected by a constant, so that on other auxiliary tasks the
    mean coverage is ``level`` (their section 4.3).

    *Difference from the paper*: the prediction is a linear quantile regression on the size of the
    task and on what its held-out support examples say, not a set transformer.

    Args:
        features: for each size ``[T, F]``.
        scores: of queries, for each size ``[T, Q]``.
        level: in (0, 1).
    """
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
    rest, weight = [], []
    for f, s, rows in zip(features, scores, fit_on, strict=True):
        left = (s[~rows] - surface(f[~rows])[:, None]).flatten()
        rest.append(left)
        weight.append(torch.full_like(left, 1 / max(len(left), 1)))
    return surface.shifted(_weighted_quantile(torch.cat(rest), torch.cat(weight), level))


def _weighted_quantile(values: Tensor, weights: Tensor, level: float) -> float:
    order = values.argsort()
    share = weights[order].cumsum(0) / weights.sum()
    index = int(torch.searchsorted(share, torch.tensor(level, dtype=share.dtype)))
    return float(values[order][min(index, len(values) - 1)])


@dataclass(frozen=True, slots=True)
class Strangers:
    """Distances of queries in ``T`` auxiliary tasks of one size.

    Args:
        size: of the tasks ``[T, F]``.
        known: of queries of their classes ``[T, Q, 4]``.
        strangers: of others ``[T, U, 4]``.
    """

    size: Tensor
    known: Tensor
    strangers: Tensor


def fit_open_set(cells: Sequence[Strangers]) -> OpenSetPrior:
    """Return the score that tells strangers, by logistic regression, and its thresholds.

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
    seen = [score(t.flatten(0, 1)).unflatten(0, t.shape[:2]) for t in known]
    sizes = [c.size for c in cells]
    return OpenSetPrior(score, {q: fit_level(sizes, seen, q) for q in LEVELS})
