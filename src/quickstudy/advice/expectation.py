"""From quick episodes to what a later measurement will show, and to what one more label buys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from quickstudy.advice.episodes import Outcome, Sample

__all__ = ["Expectation", "LabelGain", "expect", "label_gain"]

Floats = npt.NDArray[np.float64]

COVERAGE = 0.9
_DRAWS = 400
_LATER = 20  # draws of a later measurement
_EXPONENTS = np.linspace(0.1, 2.0, 20)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The accuracy to expect with ``k_shot`` labels per class, all fractions.

    Args:
        k_shot: labels per class.
        n_way: classes of an episode.
        classes: classes that had enough examples.
        episodes: that were measured.
        queries: different examples that were asked about.
        mean: the accuracy measured.
        low: lower end of the 90 % interval of the accuracy after *one* fresh draw of labels, on new
            examples of such a task.
        high: its upper end.
        mean_low: lower end of the 90 % interval of the *mean* over 20 fresh draws (or as many as
            were measured, if these are fewer), on as many other examples.
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
    """What one more label per class buys, as a fraction of accuracy.

    Args:
        labels: per class, before.
        gain: accuracy gained by one more.
        low: lower end of its 90 % interval.
        high: its upper end.
        measured_to: the largest number of labels that was measured.
        curve: ``a, b, c`` of ``a - b * labels ** -c``.
    """

    labels: int
    gain: float
    low: float
    high: float
    measured_to: int
    curve: tuple[float, float, float]

    @property
    def extrapolated(self) -> bool:
        """Whether nothing was measured with so many labels."""
        return self.labels + 1 > self.measured_to


def expect(
    outcome: Outcome, sample: Sample, *, k_shot: int, n_way: int, classes: int
) -> Expectation:
    """Return what a later measurement will show, with 90 % prediction intervals.

    The error of a mean over episodes has three parts: the finite number of episodes; of examples
    that were asked about; and of examples that supports were drawn from. A later mean, measured on
    other draws and as many other examples, has them again: their variances add. The last part
    is ``k / n`` of the variance between episodes: a mean over all supports of ``k`` in a pool of
    ``n`` is a U-statistic (Hoeffding 1948, theorem 5.2). One fresh draw of labels adds the variance
    between episodes. Where groups hold examples that belong together, groups are counted instead of
    examples. The interval is that of a Beta distribution with this variance, widened as
    Student's t is wider than the normal: it stays within 0 and 1 and is longer towards the side
    that has more room. One draw is a whole number of right answers, so its ends move out to one.

    Args:
        outcome: of one approach at one shot.
        sample: what the episodes were drawn from.
        k_shot: labels per class.
        n_way: classes of an episode.
        classes: classes that had enough examples.
    """
    scores = np.array(outcome.scores)
    mean, episodes, asked = float(scores.mean()), len(scores), outcome.asked > 0
    rows, n = int(asked.sum()), float(outcome.asked.sum()) / len(scores)
    share, among = _finite(outcome, sample, k_shot)
    between = float(scores.var(ddof=1)) if episodes > 1 else 0.25
    many = between * (1 / episodes + 1 / min(episodes, _LATER) + 2 * share) + 2 * among
    one = between * (1 + 1 / episodes + 2 * share) + 2 * among
    mean_low, mean_high = _ends(mean, many, rows, episodes)
    low, high = _ends(mean, one, rows, episodes)
    low, high = math.floor(low * n) / n, min(1.0, math.ceil(high * n) / n)
    return Expectation(k_shot, n_way, classes, episodes, rows, mean, low, high, mean_low, mean_high)


def _ends(mean: float, variance: float, rows: int, episodes: int) -> tuple[float, float]:
    """Return the ends of the interval of a share of that mean and variance."""
    tail = (1 - COVERAGE) / 2
    wider = float(stats.norm.ppf(tail) / stats.t.ppf(tail, max(1, episodes - 1)))
    inside = min(max(mean, 0.5 / rows), 1 - 0.5 / rows)  # half an answer away from none and all
    weight = inside * (1 - inside) / variance * wider**2
    beta = stats.beta(inside * weight + 0.5, (1 - inside) * weight + 0.5)  # Jeffreys' prior
    return min(float(beta.ppf(tail)), mean), max(float(beta.ppf(1 - tail)), mean)


def _finite(outcome: Outcome, sample: Sample, k_shot: int) -> tuple[float, float]:
    """Return the share of its class that a support takes, and the variance of a mean that comes
    from the finite number of examples asked about; groups are counted where there are any."""
    unit = np.arange(len(sample.y)) if sample.group is None else sample.group
    _, of = np.unique(np.stack((sample.y, unit)), axis=1, return_inverse=True)
    of = of.reshape(-1)
    y = np.zeros(of.max() + 1, dtype=np.int64)
    y[of] = sample.y
    right, asked = np.bincount(of, outcome.right), np.bincount(of, outcome.asked)
    share = min(1.0, k_shot / float(np.median(np.bincount(y))))
    seen = asked > 0
    ratio, y, n = right[seen] / asked[seen], y[seen], int(seen.sum())
    size = np.bincount(y)
    centre = np.bincount(y, ratio) / np.maximum(size, 1)
    free = n - int((size > 0).sum())
    within = float(np.square(ratio - centre[y]).sum() / free) if free > 0 else 0.25
    # one wrong answer more is always possible: no interval has length zero
    return share, max(within, 1 / n) / n


def label_gain(
    scores: Mapping[int, Sequence[float]], *, labels: int, seed: int = 0
) -> LabelGain | None:
    """Return what one label per class more buys, from a curve ``a - b * k ** -c`` through the
    accuracies at several shots (a power law, as Hestness et al. 2017 find for error).

    The interval comes from drawing the episodes again, all shots of an episode together. Beyond
    what was measured the curve is not trusted: there the interval reaches from nothing to the
    slope between the last two shots, since every further label buys less than the one before.

    Args:
        scores: accuracy of each episode by shot, those of one place from the same episode ``[E]``;
            where some shots have more episodes, the others' are used.
        labels: per class now.
        seed: of the draws.

    Returns:
        ``None`` with fewer than three shots: there is no curve through them.
    """
    shots = sorted(scores)
    if len(shots) < 3:
        return None
    episodes = min(len(values) for values in scores.values())
    table = np.array([scores[k][:episodes] for k in shots])  # [K, E]
    k = np.array(shots, dtype=np.float64)
    curve = _fit(k, table.mean(1))
    rng = np.random.default_rng([seed, 7])
    drawn = rng.integers(0, table.shape[1], (_DRAWS, table.shape[1]))
    gains = [_gain(_fit(k, table[:, rows].mean(1)), labels) for rows in drawn]
    low, high = (float(q) for q in np.quantile(gains, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]))
    if labels + 1 > shots[-1]:
        slopes = (table[-1, drawn] - table[-2, drawn]).mean(1) / (shots[-1] - shots[-2])
        low, high = 0.0, max(high, float(np.quantile(slopes, (1 + COVERAGE) / 2)))
    gain = _gain(curve, labels)
    return LabelGain(labels, gain, min(low, gain), max(high, gain), shots[-1], curve)


def _fit(k: Floats, accuracy: Floats) -> tuple[float, float, float]:
    """Return ``a, b, c`` with the least squares; ``b`` is at least 0 and ``a`` at most 1."""
    best, least = (
        (float(accuracy.mean()), 0.0, 1.0),
        float(np.square(accuracy - accuracy.mean()).sum()),
    )
    for c in _EXPONENTS:
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
    _, b, c = curve
    return float(b * (labels**-c - (labels + 1) ** -c))
