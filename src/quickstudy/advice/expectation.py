"""What quick episodes say of later ones: the accuracy to expect, and the gain of one more label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from quickstudy.advice.episodes import EpisodeResults, Sample

__all__ = ["Expectation", "LabelGain", "expect", "gain_text", "label_gain"]

Floats = npt.NDArray[np.float64]

_COVERAGE = 0.9  # of all intervals here
_TAIL = (1 - _COVERAGE) / 2
_RESAMPLES = 400  # of the episodes, for the interval of the gain
_LATER_EPISODES = 20  # over which a later measurement takes its mean
_CURVE_EXPONENTS = np.linspace(0.1, 2.0, 20)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The accuracy to expect with ``k_shot`` labels per class. All accuracies are fractions.

    Args:
        k_shot: labels per class.
        n_way: classes of an episode.
        classes: classes that had enough examples.
        episodes: episodes that were measured.
        queries: different examples that were queries in them.
        mean: the accuracy measured.
        low: lower end of the 90 % interval of the accuracy after *one* fresh draw of labels, on new
            examples of such a task.
        high: its upper end.
        mean_low: lower end of the 90 % interval of the *mean* accuracy over 20 fresh draws (or as
            many as were measured, if these are fewer), on as many other examples.
        mean_high: its upper end.
    """

    k_shot: int
    n_way: int
    classes: int
    episodes: int
    queries: int
    mean: float
    low: float
    high: float
    mean_low: float
    mean_high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f} %)"


@dataclass(frozen=True, slots=True)
class LabelGain:
    """The accuracy gained by one more label per class, a fraction.

    Args:
        labels: labels per class before.
        gain: accuracy gained by one more.
        low: lower end of its 90 % interval.
        high: its upper end.
        measured_to: the largest number of labels per class that was measured.
        curve: ``a, b, c`` of the fitted accuracy ``a - b * labels ** -c``.
    """

    labels: int
    gain: float
    low: float
    high: float
    measured_to: int
    curve: tuple[float, float, float]

    @property
    def extrapolated(self) -> bool:
        """Whether the gain lies beyond the labels that were measured."""
        return self.labels + 1 > self.measured_to


def gain_text(gain: LabelGain | None) -> str:
    """Return what one more label per class buys, as a sentence."""
    if gain is None:
        return "one more label per class: too few numbers of labels could be measured to say."
    words = (
        f"one more label per class, from {gain.labels} to {gain.labels + 1}: "
        f"{100 * gain.gain:+.2f} points (90 % interval {100 * gain.low:+.2f} to "
        f"{100 * gain.high:+.2f})"
    )
    if gain.extrapolated:
        words += f", drawn out from at most {gain.measured_to} measured"
    return words


def expect(
    results: EpisodeResults, sample: Sample, *, k_shot: int, n_way: int, classes: int
) -> Expectation:
    """Return the accuracy that a later measurement will show, with 90 % prediction intervals.

    The mean over episodes has an error of three parts. There are finitely many episodes; the
    queries are finitely many examples; and the supports are drawn from finitely many examples. A
    later mean, measured on other episodes and as many other examples, has the same three errors
    again, so the variances of both add up. The last part is ``k / n`` of the variance between
    episodes, because a mean over all supports of ``k`` examples from ``n`` is a U-statistic
    (Hoeffding 1948, theorem 5.2). A single fresh draw of labels has the variance between episodes
    itself, in place of its mean's. Where groups hold examples that belong together, groups are
    counted instead of examples.

    The interval is that of a Beta distribution with this variance, which stays within 0 and 1 and
    is longer towards the side that has more room. It is widened as Student's t is wider than the
    normal, because the variance is estimated. The accuracy after one draw is a whole number of
    right answers, so the ends of its interval are moved outwards to one.

    Args:
        results: of one candidate at one shot.
        sample: what the episodes were drawn from.
        k_shot: labels per class.
        n_way: classes of an episode.
        classes: classes that had enough examples.
    """
    scores = np.array(results.scores)
    mean, episodes, asked = float(scores.mean()), len(scores), results.asked > 0
    rows, queries = int(asked.sum()), float(results.asked.sum()) / episodes  # of all; of an episode
    share, of_queries = _finite_sample(results, sample, k_shot)
    # the largest variance that accuracies can have, where one episode tells none
    between = float(scores.var(ddof=1)) if episodes > 1 else 0.25
    later = min(episodes, _LATER_EPISODES)
    variance_of_mean = between * (1 / episodes + 1 / later + 2 * share) + 2 * of_queries
    variance_of_one = between * (1 + 1 / episodes + 2 * share) + 2 * of_queries
    mean_low, mean_high = _interval(mean, variance_of_mean, rows, episodes)
    low, high = _interval(mean, variance_of_one, rows, episodes)
    low, high = math.floor(low * queries) / queries, min(1.0, math.ceil(high * queries) / queries)
    return Expectation(k_shot, n_way, classes, episodes, rows, mean, low, high, mean_low, mean_high)


def _interval(mean: float, variance: float, rows: int, episodes: int) -> tuple[float, float]:
    """Return the ends of the 90 % interval of an accuracy with this mean and variance.

    A Beta distribution with parameters ``m * w`` and ``(1 - m) * w`` has the mean ``m`` and about
    the variance ``m * (1 - m) / w``, from which ``w`` follows.

    Args:
        mean: the accuracy.
        variance: of a later accuracy around it.
        rows: different examples that were queries.
        episodes: from how many the variance was estimated.
    """
    wider = float(stats.norm.ppf(_TAIL) / stats.t.ppf(_TAIL, max(1, episodes - 1)))
    # half an answer away from 0 and 1, where a Beta distribution would have no width
    inside = min(max(mean, 0.5 / rows), 1 - 0.5 / rows)
    weight = inside * (1 - inside) / variance * wider**2
    beta = stats.beta(inside * weight + 0.5, (1 - inside) * weight + 0.5)  # Jeffreys' prior
    return min(float(beta.ppf(_TAIL)), mean), max(float(beta.ppf(1 - _TAIL)), mean)


def _finite_sample(results: EpisodeResults, sample: Sample, k_shot: int) -> tuple[float, float]:
    """Return what having finitely many examples adds to the variance of the mean accuracy.

    Both numbers count independent units: groups, or examples where there are no groups.

    Returns:
        The share of its class that a support takes, and the variance of the mean that comes from
        the finite number of units that were queries.
    """
    group = np.arange(len(sample.y)) if sample.group is None else sample.group
    # a unit is a group within one class
    _, unit = np.unique(np.stack((sample.y, group)), axis=1, return_inverse=True)
    unit = unit.reshape(-1)
    y = np.zeros(unit.max() + 1, dtype=np.int64)  # class of each unit
    y[unit] = sample.y
    right, asked = np.bincount(unit, results.right), np.bincount(unit, results.asked)
    share = min(1.0, k_shot / float(np.median(np.bincount(y))))
    seen = asked > 0
    accuracy, y, n = right[seen] / asked[seen], y[seen], int(seen.sum())
    # around the mean of its class: the classes are given, so differences between them are no error
    size = np.bincount(y)
    class_mean = np.bincount(y, accuracy) / np.maximum(size, 1)
    degrees = n - int((size > 0).sum())
    # 0.25 is the largest variance that there is, where it cannot be estimated
    within = float(np.square(accuracy - class_mean[y]).sum() / degrees) if degrees > 0 else 0.25
    # one wrong answer more is always possible: no interval has length zero
    return share, max(within, 1 / n) / n


def label_gain(
    scores: Mapping[int, Sequence[float]], *, labels: int, seed: int = 0
) -> LabelGain | None:
    """Return the accuracy gained by one more label per class.

    It is read from a curve ``a - b * k ** -c`` through the accuracies at several shots (a power
    law, as Hestness et al. 2017 find for error). The interval comes from a bootstrap over episodes;
    an episode is drawn with all its shots, because these share classes and examples. Beyond the
    labels measured the curve is not trusted. Every further label gains less than the one before, so
    there the interval reaches from nothing to the slope between the two largest shots.

    Args:
        scores: accuracy of each episode ``[E]`` by shot. Those of one place are from episodes of
            the same index; where some shots have more episodes, the surplus is not used.
        labels: labels per class now.
        seed: of the bootstrap.

    Returns:
        The gain; ``None`` with fewer than three shots, which determine no curve.
    """
    shots = sorted(scores)
    if len(shots) < 3:
        return None
    episodes = min(len(values) for values in scores.values())
    table = np.array([scores[k][:episodes] for k in shots])  # [K, E]
    k = np.array(shots, dtype=np.float64)
    curve = _fit(k, table.mean(1))
    gain = _gain(curve, labels)
    rng = np.random.default_rng([seed, 7])
    drawn = rng.integers(0, episodes, (_RESAMPLES, episodes))
    gains = [_gain(_fit(k, table[:, rows].mean(1)), labels) for rows in drawn]
    low, high = (float(q) for q in np.quantile(gains, [_TAIL, 1 - _TAIL]))
    before_last, last = shots[-2:]
    if labels + 1 > last:
        rise = np.array(scores[last][:episodes]) - np.array(scores[before_last][:episodes])
        slopes = rise[drawn].mean(1) / (last - before_last)
        low, high = 0.0, max(high, float(np.quantile(slopes, 1 - _TAIL)))
    return LabelGain(labels, gain, min(low, gain), max(high, gain), last, curve)


def _fit(k: Floats, accuracy: Floats) -> tuple[float, float, float]:
    """Return ``a, b, c`` of the curve ``a - b * k ** -c`` with the least squares.

    For a fixed ``c`` the curve is a line in ``x = k ** -c``, whose best ``a`` and ``b`` are known;
    so only ``c`` is searched, over a grid. ``b`` is at least 0: more labels never do harm. ``a``,
    the accuracy with infinitely many labels, is at most 1.

    Args:
        k: shots ``[K]``.
        accuracy: at each of them ``[K]``.
    """
    flat = float(accuracy.mean())
    best, least = (flat, 0.0, 1.0), float(np.square(accuracy - accuracy.mean()).sum())
    for c in _CURVE_EXPONENTS:
        x = k**-c
        spread = x - x.mean()
        b = max(0.0, -float(spread @ accuracy / (spread @ spread)))
        a = float(accuracy.mean() + b * x.mean())
        if a > 1:
            a, b = 1.0, max(0.0, float(x @ (1 - accuracy) / (x @ x)))
        loss = float(np.square(a - b * x - accuracy).sum())
        if loss < least:
            best, least = (a, b, float(c)), loss
    return best


def _gain(curve: tuple[float, float, float], labels: int) -> float:
    """Return how much the curve rises from ``labels`` to one more."""
    _, b, c = curve
    return float(b * (labels**-c - (labels + 1) ** -c))
