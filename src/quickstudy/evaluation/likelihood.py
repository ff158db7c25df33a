"""The likelihood of targets under what a regression learner says, and whether its intervals hold.

A learner that gives a standard deviation is taken by its word. One that gives a mean only is judged
with a Gaussian around that mean whose deviation is estimated from the support alone: examples of
the support are held out, the learner adapts to the others, and its errors on those held out are
squared and averaged. So the estimate has seen no query, and an error on an example that the learner
had adapted to is never taken for an error on a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import DivergenceError, Examples, TaskError, TaskState
from quickstudy.core.arguments import checked
from quickstudy.evaluation.statistics import Mean
from quickstudy.learners.base import Learner, predict_queries
from quickstudy.learners.predictive import Gaussian

__all__ = ["SHARE", "Likelihood", "predictive", "said_of_queries", "scores_of"]

Floats = npt.NDArray[np.float64]

SHARE = 0.9
"""Share of the targets that the intervals in reports are to hold."""

# the support is divided into at most so many parts that are held out in turn
_FOLDS = 10
# from two residuals the mean likelihood does not exist: one of them may be anything near zero
_FEWEST = 3
# in the unit of the targets: one that is answered exactly must not have an infinite density
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the targets were under what a learner said, for each episode.

    Args:
        nll: negative log-likelihood of the queries of each episode ``[E]``, the mean over its
            queries, in nats.
        coverage: share of the queries of each episode whose target lies in its 90 % interval
            ``[E]``.
        estimated: whether the deviation was estimated from held-out examples of the support, since
            the learner gives a mean only.

    Example::

        from quickstudy.nets import Identity

        learner = ConditionalNeuralProcess(Identity((1,)))
        report = evaluate(learner, SinusoidSource("test"), EpisodeSpec(1, 10), episodes=20)
        print(report.likelihood.nll.mean(), report.likelihood.coverage.mean())
    """

    nll: Floats
    coverage: Floats
    estimated: bool

    @property
    def mean_nll(self) -> Mean:
        """The mean negative log-likelihood, with its interval over episodes."""
        return Mean.of(self.nll, over="episodes")

    @property
    def mean_coverage(self) -> Mean:
        """The mean share of targets in their 90 % intervals, with its interval over episodes."""
        return Mean.of(self.coverage, over="episodes")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; coverage is a fraction."""
        return {
            "nll": self.mean_nll.to_dict(),
            "coverage90": self.mean_coverage.to_dict(),
            "deviation": "held-out support" if self.estimated else "learner",
        }

    def __str__(self) -> str:
        said = "; deviation estimated from held-out support" if self.estimated else ""
        return (
            f"negative log-likelihood {self.mean_nll.plain()} nats; 90 % intervals hold "
            f"{self.mean_coverage.percent()}{said}"
        )


@checked
@torch.no_grad()
def predictive(learner: Learner, support: Examples, x: Tensor) -> Gaussian | None:
    """Return what a learner says of the targets of queries, after learning a support set.

    A deviation that the learner does not give itself is estimated from the support, the same for
    all queries of a task.

    Args:
        learner: any learner of regression.
        support: real-valued targets, ``[T, S, ...]``.
        x: queries ``[T, Q, ...]``.

    Returns:
        A Gaussian for each query, or ``None`` if the learner gives a mean only and a task has fewer
        than three support examples, from whose errors no deviation can be estimated.

    Raises:
        TaskError: if the labels are classes, or a deviation is not positive and finite.

    Example::

        from quickstudy.evaluation import predictive

        episode = SinusoidSource("test").episodes(EpisodeSpec(1, 10), [0, 1], seed=0)
        said = predictive(NearestNeighbour(), episode.support, episode.query.x)
        low, high = said.interval(0.9)  # each [2, 15]
    """
    if not support.y.is_floating_point():
        raise TaskError(
            f"a Gaussian is for regression, and the labels are {support.y.dtype}. Give real "
            "numbers as y."
        )
    state = learner.adapt(support, n_way=1)
    queries = Examples.full(x, x.new_zeros(x.shape[:2]))
    mean = learner.predict(state, x)[..., 0]
    found = said_of_queries(learner, state, support, queries, mean)
    return None if found is None else found[0]


def said_of_queries(
    learner: Learner, state: TaskState, support: Examples, query: Examples, mean: Tensor
) -> tuple[Gaussian, bool] | None:
    """Return what an adapted learner says of its queries, and whether its deviation is estimated.

    See :func:`predictive`, which takes a learner that has not adapted yet.

    Args:
        learner: any learner of regression.
        state: what it learned of the support.
        support: of ``T`` tasks.
        query: padded queries ``[T, Q, ...]``.
        mean: what it predicted for them ``[T, Q]``.
    """
    if learner.transductive and not bool(query.mask.all()):
        return None  # padding would be taken for other queries
    wide = query.mask.view(*query.mask.shape, *(1,) * (query.x.ndim - 2))
    said = learner.predictive(state, query.x.masked_fill(~wide, 0))
    if said is None:
        deviation = _held_out_deviation(learner, support)
        if deviation is None:
            return None
        return Gaussian(mean, deviation[:, None].expand_as(mean)), True
    if said.mean.shape != mean.shape:
        raise TaskError(
            f"{type(learner).__name__}.predictive returned means {list(said.mean.shape)}, and "
            f"these tasks need [T, Q] = {list(mean.shape)}."
        )
    bad = ~((said.deviation > 0) & torch.isfinite(said.deviation)) & query.mask
    if bool(bad.any()):
        raise TaskError(
            f"{type(learner).__name__} gave a deviation of {float(said.deviation[bad][0])}; it "
            "must be positive and finite. Check the training for divergence."
        )
    return said, False


def scores_of(said: Gaussian, query: Examples) -> tuple[Floats, Floats]:
    """Return negative log-likelihood and coverage of each task's queries, each ``[T]``."""
    # padding may hold anything, and zero times NaN is NaN
    y = query.y.masked_fill(~query.mask, 0)
    low, high = said.interval(SHARE)
    inside = (low <= y) & (y <= high) & query.mask
    density = said.log_density(y).masked_fill(~query.mask, 0)
    count = query.mask.sum(1).clamp(min=1)
    found = (-density.sum(1) / count, inside.sum(1) / count)
    nll, coverage = (value.double().cpu().numpy() for value in found)
    return nll, coverage


def _held_out_deviation(learner: Learner, support: Examples) -> Tensor | None:
    """Return the root of the mean squared error on held-out support ``[T]``, ``None`` if there is
    too little of it, or the learner cannot learn from what is left."""
    mask, count = support.mask, support.mask.sum(1)
    if int(count.min()) < _FEWEST:
        return None
    # by rank among the real examples, wherever padding stands: no part is all that a task has
    parts = min(_FOLDS, support.y.shape[1])
    part = (mask.cumsum(1) - 1) % parts  # [T, S]
    wide = mask.view(*mask.shape, *(1,) * (support.x.ndim - 2))
    x, y = support.x.masked_fill(~wide, 0), support.y.masked_fill(~mask, 0)
    total = torch.zeros_like(y[:, 0])
    for number in range(parts):
        held = mask & (part == number)
        try:
            state = learner.adapt(Examples(x, y, mask & ~held), n_way=1)
            output = predict_queries(learner, state, Examples(x, y, mask))[..., 0]
        except DivergenceError:
            return None  # with all of its support it did not diverge, and that is what is scored
        total = total + (output - y).square().masked_fill(~held, 0).sum(1)
    return (total / count).sqrt().clamp(min=_SMALLEST)
