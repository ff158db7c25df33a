"""Intervals of a mean over new classes: a mean over episodes is a U-statistic of its classes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.evaluation.statistics import Interval

__all__ = ["CLASS_METHOD", "class_interval"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASS_METHOD = "jackknife over classes"
"""How :func:`class_interval` finds its interval, as documents name it."""

_LEAST_EPISODES = 5  # of a source; fewer do not tell what classes do
# where noise hides what classes do, the formula gives less than 1, and intervals many times too
# wide; what this number does instead is simulated in benchmarks/class_interval.py
_LEAST_FREEDOM = 4.0


@checked
def class_interval(
    scores: Floats, classes: Ints, *, sources: Ints | None = None, most: float = math.inf
) -> Interval | None:
    """Return a 95 % interval of the mean score over new *classes* of the kind.

    The interval over episodes takes the test classes as given. With few of them, other classes
    would move the mean much further than that interval says. The mean over all N-way episodes of
    ``n`` classes is a U-statistic of degree N (Hoeffding 1948): each class acts on its own score
    and on those of the classes beside it, and both show in the mean ``m_c`` of the episodes that
    it is in. If class ``c`` moves an episode by ``g_c``, the mean ``U`` moves by the mean of
    ``N g_c``, and as the other N-1 classes are drawn from the same ``n``,

        m_c - U = (n - N) / (n - 1) * (g_c - mean g),   so   d_c = N (n - 1) / (n - N) * (m_c - U)

    is what class ``c`` contributes, and ``Var[U] = Var[d] / n``: the jackknife that leaves out one
    class and all its episodes (Arvesen 1969), whose variance errs to the wide side (Efron and
    Stein 1981). As the episodes are a sample of all episodes, two terms come in: the noise of
    every ``m_c`` is subtracted, and the variance of the mean over episodes is added. The quantile
    is Student's, with Satterthwaite's (1946) degrees of freedom.

    Args:
        scores: one per episode ``[E]``.
        classes: index of each class that takes part in the episode, as an example to learn or to
            answer ``[E, C]``, -1 = absent.
        sources: number of the source that each episode comes from ``[E]``, which its class indices
            belong to; the sources count as fixed. ``None`` = all come from one.
        most: the largest possible score; the smallest is 0. The interval stays between them.

    Returns:
        The interval; ``None`` if the episodes do not tell how classes differ: there are fewer than
        5 of a source, or (nearly) every one holds every class.

    Raises:
        ConfigError: if the shapes do not fit.
    """
    n_episodes = len(scores)
    if classes.shape[:1] != scores.shape or (sources is not None and len(sources) != n_episodes):
        raise ConfigError(
            f"scores [E], classes [E, C] and sources [E] belong together; got {scores.shape}, "
            f"{classes.shape} and {None if sources is None else sources.shape}."
        )
    if n_episodes < _LEAST_EPISODES:
        return None
    if scores.min() == scores.max():
        return Interval(float(scores[0]), float(scores[0]))
    mean, among = float(scores.mean()), float(scores.var(ddof=1)) / n_episodes
    # (signed mean square, its degrees of freedom): Satterthwaite's terms
    terms = [(among, n_episodes - 1.0)]
    for source in [0] if sources is None else np.unique(sources):
        here = np.full(n_episodes, True) if sources is None else sources == source
        found = _between(scores[here], classes[here])
        if found is None:
            return None
        weight = float(here.mean()) ** 2  # the mean is a sum of the sources' means times shares
        between, noise, n_classes = found
        terms += [(weight * between, n_classes - 1.0), (-weight * noise, here.sum() - 1.0)]
    total = max(among, sum(value for value, _ in terms))
    freedom = total**2 / sum(value**2 / free for value, free in terms)
    half = float(stats.t.ppf(0.975, max(freedom, _LEAST_FREEDOM))) * math.sqrt(total)
    return Interval(max(0.0, mean - half), min(most, mean + half))


def _between(scores: Floats, classes: Ints) -> tuple[float, float, int] | None:
    """Return the variance that classes give the mean of one source, what of it is noise, and ``n``.

    The contributions are summed as ``d_c = n / E * sum (n-1) / (n-N) * (score - fit)`` over the
    episodes with class ``c``, which is the formula of :func:`class_interval` where all episodes
    have one number of ways N and all classes are drawn equally often, and holds for ranges too.
    """
    present = classes >= 0
    ways = present.sum(1)
    _, numbers = np.unique(classes[present], return_inverse=True)
    n = int(numbers.max(initial=-1)) + 1
    telling = ways < n  # an episode of all classes does not tell them apart
    if n < 3 or len(scores) < _LEAST_EPISODES or telling.mean() < 0.5:
        return None
    at = np.repeat(np.arange(len(scores)), ways)  # the episode of each number
    numbers, at = numbers[telling[at]], at[telling[at]]
    n_episodes = int(telling.sum())
    # what the number of ways explains is not the classes' doing; the fit only takes noise away
    fit = np.polynomial.Polynomial.fit(ways, scores, int(ways.min() < ways.max()))(ways)
    part = n / (n_episodes) * (n - 1) / np.maximum(n - ways, 1) * (scores - fit)  # [E]
    total = np.bincount(numbers, weights=part[at], minlength=n)  # d_c [n]
    square = np.bincount(numbers, weights=part[at] ** 2, minlength=n)
    spread = float(total.var(ddof=1))
    # d_c is a sum over independent episodes: its variance is E times that of one summand, which
    # is `part` in the episodes with c and 0 in the others; the d of one episode vary together
    own = float((square - total**2 / n_episodes).sum()) * n_episodes / (n_episodes - 1)
    joint = float((part * ways)[telling].var(ddof=1)) * n_episodes
    noise = max(0.0, (own - joint / n) / (n - 1))
    return spread / n, noise / n, n
