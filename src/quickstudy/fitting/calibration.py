"""What a head's answers in auxiliary tasks allow to say of a task of another kind.

Each source (data set) stands for a kind of tasks. What is said of a task that resembles none of
them must hold in every one; of a task that resembles one, that one has half of the weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.fitting.combining import accuracy_interval
from quickstudy.fitting.evidence import log_loss
from quickstudy.fitting.heads import Settings
from quickstudy.fitting.one_shot import ByWays, Levels, OneShot
from quickstudy.fitting.prior import LEVELS, HeadPrior, OpenSetPrior

__all__ = ["Answers", "Ratios", "fit_head_prior", "fit_open_set"]

Numbers = npt.NDArray[np.float64]

# log temperatures tried around the logarithm of the logits' standard deviation
_STEPS = torch.linspace(-4, 4, 81, dtype=torch.float64)
_LOSS_CAP = 10.0  # nats: no outlier dominates
_GRID = 20  # quantiles that stand for a distribution
_WEIGHT_OF_RESEMBLED = 0.5


@dataclass(frozen=True, slots=True)
class Answers:
    """A head's answers in ``T`` auxiliary tasks of one source and size.

    Args:
        source: where the tasks are from.
        ways: classes per task.
        shots: examples per class.
        logits: of queries ``[T, Q, C]``.
        y: labels of these queries ``[T, Q]``.
        accuracy: share of queries answered right ``[T]``.
        temperature: of each task's own held-out examples ``[T]``; unused at one shot.
    """

    source: str
    ways: int
    shots: int
    logits: Tensor
    y: Tensor
    accuracy: Tensor
    temperature: Tensor


@dataclass(frozen=True, slots=True)
class Ratios:
    """Distances of known queries in ``T`` auxiliary tasks, in units of each task's own.

    Args:
        source: where the tasks are from.
        ways: classes per task.
        shots: examples per class.
        known: see :class:`~quickstudy.fitting.novelty.Neighbourhood` ``[T, Q]``.
    """

    source: str
    ways: int
    shots: int
    known: Tensor


def fit_head_prior(
    cells: Sequence[Answers], settings: Mapping[tuple[int, int], Settings]
) -> HeadPrior:
    """Return what one head may say of a task.

    Args:
        cells: its answers, by source and size; at least one of one shot.
        settings: the head's settings by ways and shots, stored unchanged.
    """
    one_shot = [c for c in cells if c.shots == 1]
    expected: dict[tuple[int, int], list[float]] = {}
    for c in cells:
        expected.setdefault((c.ways, c.shots), []).append(float(c.accuracy.mean()))
    held_out = [
        log_loss(c.logits, c.y, c.temperature).flatten().numpy() for c in cells if c.shots > 1
    ]
    near = {
        source: _one_shot(one_shot, resembled=source)
        for source in sorted({c.source for c in one_shot})
    }
    return HeadPrior(
        settings=settings,
        expected={size: float(np.mean(values)) for size, values in sorted(expected.items())},
        far=_one_shot(one_shot, resembled=None),
        near=near,
        held_out=_grid(held_out),
    )


def fit_open_set(cells: Sequence[Ratios]) -> OpenSetPrior:
    """Return the distances up to which queries count as known.

    Args:
        cells: by source and size; at least one of one shot.
    """
    one_shot = [c for c in cells if c.shots == 1]
    by_size = {(c.source, c.ways): c.known.flatten().double().numpy() for c in one_shot}
    near = {
        source: _levels(by_size, resembled=source)
        for source in sorted({c.source for c in one_shot})
    }
    held_out = [c.known.flatten().double().numpy() for c in cells if c.shots > 1]
    return OpenSetPrior(_levels(by_size, resembled=None), near, _grid(held_out))


def _one_shot(cells: Sequence[Answers], *, resembled: str | None) -> OneShot:
    """Return the tables of tasks that resemble a source (``None`` = none)."""
    rows: dict[str, dict[int, float]] = {n: {} for n in ("temperature", "mean", "low", "high")}
    sets: dict[float, dict[int, float]] = {level: {} for level in LEVELS}
    for ways, of_size in _by_ways(cells, resembled).items():
        weights = _weights([c.source for c in of_size], resembled)
        temperature = _temperature(of_size, weights)
        rows["temperature"][ways] = math.log(temperature)
        accuracy = [c.accuracy.double().numpy() for c in of_size]
        rows["mean"][ways] = float(np.dot(weights, [a.mean() for a in accuracy]))
        # of other kinds of tasks no accuracy is known: from guessing (with bad luck) to 1. A task
        # may resemble a source by its subject and differ in what its classes are: it may be as
        # easy as any, and its lower end lies half way
        rows["high"][ways] = 1.0
        rows["low"][ways] = accuracy_interval(1 / ways, 15 * ways, 1e9, ways)[0]
        if resembled is not None:
            rows["low"][ways] = (rows["low"][ways] + _mixed_quantile(accuracy, weights, 0.05)) / 2
        scores = []
        for c in of_size:
            scale = torch.full((len(c.y),), temperature, dtype=torch.float64)
            scores.append(log_loss(c.logits, c.y, scale).flatten().numpy())
        for level in LEVELS:
            sets[level][ways] = _quantile(scores, weights, _wider(level), resembled)
    return OneShot(
        _table(rows["temperature"]),
        _table(rows["mean"]),
        _table(rows["low"]),
        _table(rows["high"]),
        {level: _table(values) for level, values in sets.items()},
    )


def _by_ways(cells: Sequence[Answers], resembled: str | None) -> dict[int, list[Answers]]:
    """Return the cells by their number of classes, see :func:`_sources_at`."""
    at = {(c.source, c.ways): c for c in cells}
    return {
        ways: [at[key] for key in keys] for ways, keys in _sources_at(list(at), resembled).items()
    }


def _sources_at(
    sizes: Sequence[tuple[str, int]], resembled: str | None
) -> dict[int, list[tuple[str, int]]]:
    """Return for each number of classes the source and size that speak for it.

    A source that has never shown so many classes speaks by its largest size: an easy source with
    many classes must not be the only one that is heard. The resembled source itself must have shown
    them.

    Args:
        sizes: pairs of source and number of classes.
        resembled: a source; ``None`` = none.
    """
    found: dict[int, list[tuple[str, int]]] = {}
    for ways in sorted({n for _, n in sizes}):
        if resembled is not None and (resembled, ways) not in sizes:
            continue
        found[ways] = [
            (source, max(known))
            for source in sorted({s for s, _ in sizes})
            if (known := [n for s, n in sizes if s == source and n <= ways])
        ]
    return found


def _weights(sources: Sequence[str], resembled: str | None) -> Numbers:
    """Return the weight of each source; they sum to 1."""
    if resembled is None or len(sources) == 1:
        return np.full(len(sources), 1 / len(sources))
    rest = (1 - _WEIGHT_OF_RESEMBLED) / (len(sources) - 1)
    return np.array([_WEIGHT_OF_RESEMBLED if s == resembled else rest for s in sources])


def _temperature(cells: Sequence[Answers], weights: Numbers) -> float:
    """Return the temperature with the least mean log loss, sources weighted."""
    finite = torch.cat([c.logits[c.logits.isfinite()] for c in cells])
    start = float(finite.double().std().clamp(min=1e-3).log())
    best, least = start, math.inf
    for log_temperature in (start + _STEPS).tolist():
        losses = [
            float(
                log_loss(c.logits, c.y, torch.full((len(c.y),), math.exp(log_temperature)).double())
                .clamp(max=_LOSS_CAP)
                .mean()
            )
            for c in cells
        ]
        loss = float(np.dot(weights, losses))
        if loss < least:
            best, least = log_temperature, loss
    return math.exp(best)


def _levels(scores: Mapping[tuple[str, int], Numbers], *, resembled: str | None) -> Levels:
    """Return thresholds below which the scores of the sources lie, by share and ways."""
    found: dict[float, dict[int, float]] = {level: {} for level in LEVELS}
    for ways, keys in _sources_at(list(scores), resembled).items():
        weights = _weights([source for source, _ in keys], resembled)
        values = [scores[key] for key in keys]
        for level in LEVELS:
            found[level][ways] = _quantile(values, weights, _wider(level), resembled)
    return {level: _table(values) for level, values in found.items()}


def _quantile(
    values: Sequence[Numbers], weights: Numbers, level: float, resembled: str | None
) -> float:
    """Return a quantile of the weighted sources together.

    Where the task resembles none of them it is one that holds in each, and in one more that is
    worse than the worst by as much as the sources differ from the next on average: of ``n`` kinds
    one in ``n + 1`` is worse than all known.
    """
    if resembled is not None:
        return _mixed_quantile(values, weights, level)
    each = [float(np.quantile(v, level)) for v in values]
    return max(each) + (max(each) - min(each)) / max(len(each) - 1, 1)


def _wider(level: float) -> float:
    """Return the share that is aimed at: half as many scores may lie beyond as were asked for.

    A task to come is of a source that nobody has seen, and one example per class cannot tell how it
    differs.
    """
    return (1 + level) / 2


def _mixed_quantile(values: Sequence[Numbers], weights: Numbers, level: float) -> float:
    """Return a quantile of the weighted sources together."""
    every = np.concatenate(values)
    share = [np.full(len(v), w / len(v)) for v, w in zip(values, weights, strict=True)]
    order = np.argsort(every, kind="stable")
    ordered = np.concatenate(share)[order]
    return float(np.interp(level, np.cumsum(ordered) - ordered / 2, every[order]))


def _grid(values: Sequence[Numbers]) -> tuple[float, ...]:
    """Return evenly spaced quantiles of several sources or sizes, each of which weighs the same."""
    if not values:
        return ()
    levels = (np.arange(_GRID) + 0.5) / _GRID
    fine = np.concatenate([np.quantile(v, np.linspace(0.005, 0.995, 100)) for v in values])
    return tuple(float(q) for q in np.quantile(fine, levels))


def _table(values: Mapping[int, float]) -> ByWays:
    return ByWays(tuple(values), tuple(values.values()))
