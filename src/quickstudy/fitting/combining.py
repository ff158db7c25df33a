"""A task's own held-out examples and what other tasks say, put together.

Where examples can be held out they speak almost alone: on data sets that a prior never saw, its
word was worth about half an example in thresholds of prediction sets, and two in those of
strangers (benchmarks/honesty.py measures what comes of it). Where nothing can be held out the
prior is all there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from torch import Tensor

__all__ = [
    "RATIO_WEIGHT",
    "SET_WEIGHT",
    "accuracy_interval",
    "held_out_accuracy",
    "held_out_quantile",
    "weighted_quantile",
]

SET_WEIGHT = 0.5
"""Held-out examples that a prior's scores of the right class count for."""

RATIO_WEIGHT = 2.0
"""Held-out examples that a prior's distances of known queries count for."""

# examples that the mean confidence counts for beside the held-out answers, at most
_CONFIDENCE_WEIGHT = 8.0
# what a head gains in log odds of being right by the examples that were held out, times the shots
_GAIN = 0.5
# what is known of an accuracy before any answer, in examples
_PRIOR_EXAMPLES = 2.0
# independent answers that each held-out one is worth: those of a task share its support. On
# training rows of eleven data sets intervals held 91 % on average with 1 and 93 % with 0.7, fewer
# than 85 % in 16 and in 4 of 95 cells
_INDEPENDENT = 0.7
# queries per class whose accuracy an interval is for: it includes the luck of drawing them
_QUERIES = 15


def held_out_quantile(scores: Tensor, level: float) -> float:
    """Return the conformal quantile of exchangeable scores.

    It is the ``ceil((n + 1) level)``-th smallest of ``n`` scores, infinity if there are too few: a
    further score is at most that large with probability ``level`` or more (Vovk, Gammerman and
    Shafer 2005, section 2.2).

    Args:
        scores: ``[N]``.
        level: in (0, 1).
    """
    n = len(scores)
    rank = math.ceil((n + 1) * level)
    return math.inf if rank > n else float(scores.sort().values[rank - 1])


def weighted_quantile(own: Tensor, others: Sequence[float], weight: float, level: float) -> float:
    """Return a quantile of a task's own scores and of those of other tasks together.

    Args:
        own: scores of held-out examples ``[N]``, each of weight 1.
        others: evenly spaced quantiles of scores in other tasks.
        weight: of all of them together.
        level: in (0, 1).
    """
    values = np.concatenate([own.double().numpy(), np.asarray(others, dtype=np.float64)])
    weights = np.concatenate([np.ones(len(own)), np.full(len(others), weight / len(others))])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    # each score stands for the middle of its share
    share = (np.cumsum(weights) - weights / 2) / weights.sum()
    return float(np.interp(level, share, values))


def held_out_accuracy(right: Tensor, confidence: Tensor, shots: float) -> float:
    """Return the accuracy to expect of a head that learned from all examples.

    The mean confidence counts like up to eight further answers: it varies less than few answers
    that are right or wrong. As every example was answered by a head that had seen fewer, a little
    is added, by the number of shots.

    Args:
        right: which held-out examples were answered right ``[N]``.
        confidence: calibrated probabilities of the answers ``[N]``.
        shots: examples per class, harmonic mean.
    """
    n = len(right)
    weight = min(_CONFIDENCE_WEIGHT, float(n))
    share = (float(right.double().sum()) + weight * float(confidence.double().mean())) / (
        n + weight
    )
    share = min(max(share, 1e-3), 1 - 5e-3 / (1 + n / 25))
    logit = math.log(share / (1 - share)) + _GAIN / max(shots, 1.0)
    return 1 / (1 + math.exp(-logit))


def accuracy_interval(mean: float, n: int, shots: float, ways: int) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of a task's accuracy on 15 queries per class.

    A beta-binomial around the mean, as certain as seven tenths of ``n`` answers (they share the
    support), less those that a head of fewer examples is worth (one in ``shots``).

    Args:
        mean: expected accuracy, in (0, 1).
        n: held-out examples.
        shots: examples per class, harmonic mean.
        ways: classes.
    """
    certain = _INDEPENDENT * n * max(1 - 1 / max(shots, 1.0), 0.25) + _PRIOR_EXAMPLES
    queries = _QUERIES * ways
    spread = stats.betabinom(queries, mean * certain, (1 - mean) * certain)
    low, high = (float(spread.ppf(q)) / queries for q in (0.05, 0.95))
    return min(low, mean), max(high, mean)
