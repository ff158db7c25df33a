"""Means over episodes with their intervals, tests of differences, and calibration error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from quickstudy.core.arguments import checked

__all__ = [
    "CalibrationCounts",
    "Interval",
    "Mean",
    "holm",
    "mean_interval",
    "paired_p_value",
]

Floats = npt.NDArray[np.float64]

# half-widths from which an interval holds every possible value: shares lie in [0, 1], differences
# of shares in [-1, 1]
_WIDEST_SHARE, _WIDEST_GAP = 0.5, 1.0


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % interval, and what it was taken over.

    Args:
        mean: the mean; a fraction for all texts but :meth:`plain`.
        ci95: half-width of the interval, in the unit of the mean; ``nan`` = there is none.
        n: number of scores that the mean was taken over.
        over: what the scores are of: ``"episodes"``, ``"seeds"``, ``"domains"`` and the like.

    Example::

        >>> from quickstudy.evaluation import Mean
        >>> accuracy = Mean.of([0.9, 1.0, 0.8, 0.9], over="episodes")
        >>> f"{accuracy.percent()} over {accuracy.n} {accuracy.over}"
        '90.00 ± 12.99 % over 4 episodes'
    """

    mean: float
    ci95: float
    n: int
    over: str

    @classmethod
    def of(cls, scores: Floats | Sequence[float], *, over: str, comparisons: int = 1) -> Mean:
        """Return the mean of independent scores, with Student's interval.

        Args:
            scores: at least one ``[N]``, see :func:`mean_interval`.
            over: what the scores are of.
            comparisons: how many intervals are to hold together (Bonferroni).
        """
        values = np.asarray(scores, dtype=np.float64)
        half = mean_interval(values, comparisons=comparisons)
        return cls(float(values.mean()), half, len(values), over)

    @classmethod
    def average(cls, means: Sequence[Mean], *, over: str) -> Mean:
        """Return the mean of independent means, each weighing the same.

        The interval covers the chance within each of them, such as the episodes of a domain. The
        domains themselves (``over``) count as fixed: the mean over other domains may lie outside.
        """
        # Var[(m_1 + ... + m_n) / n] = (Var[m_1] + ... + Var[m_n]) / n^2
        half = math.sqrt(sum(m.ci95**2 for m in means)) / len(means)
        return cls(float(np.mean([m.mean for m in means])), half, len(means), over)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.ci95

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.ci95

    def __neg__(self) -> Mean:
        """Return the mean with the other sign: of second minus first, say."""
        return replace(self, mean=-self.mean)

    def __str__(self) -> str:
        return self.cell()

    def told(self, *, widest: float = _WIDEST_SHARE) -> bool:
        """Return whether there is an interval that says something.

        Args:
            widest: half-width from which on it says nothing: of a share, 0.5 is the whole scale.
        """
        return not math.isnan(self.ci95) and self.ci95 <= widest

    def percent(self, *, digits: int = 2) -> str:
        """Return ``"96.31 ± 0.24 %"``, or words if the interval is wider than the scale."""
        return self._with_unit("%", _WIDEST_SHARE, digits, signed=False)

    def points(self, *, digits: int = 2, signed: bool = True) -> str:
        """Return a difference of fractions, ``"+1.20 ± 0.30 points"``."""
        return self._with_unit("points", _WIDEST_GAP, digits, signed=signed)

    def cell(
        self,
        *,
        digits: int = 2,
        signed: bool = False,
        aligned: bool = False,
        widest: float | None = None,
    ) -> str:
        """Return ``"96.31 ± 0.24"`` for a table whose head says per cent or points.

        Args:
            digits: after the decimal point.
            signed: whether a positive mean has a plus sign.
            aligned: whether numbers are padded, so that those up to 100 line up in a column.
            widest: half-width above which the interval is left out, see :meth:`told`; that of a
                share if not given, of a difference if ``signed``.
        """
        limit = widest if widest is not None else _WIDEST_GAP if signed else _WIDEST_SHARE
        return self._text(100, digits, signed=signed, aligned=aligned, widest=limit)

    def plain(self, *, digits: int = 4, signed: bool = False) -> str:
        """Return ``"0.0123 ± 0.0004"``, for a mean that is no fraction, such as an error."""
        return self._text(1, digits, signed=signed)

    def _with_unit(self, unit: str, widest: float, digits: int, *, signed: bool) -> str:
        text = f"{self._text(100, digits, signed=signed, widest=widest)} {unit}"
        # an interval is missing where there are not two scores; here it would be beyond the scale
        wide = self.ci95 > widest
        return f"{text} (too few {self.over} for an interval)" if wide else text

    def _text(
        self,
        scale: int,
        digits: int,
        *,
        signed: bool = False,
        aligned: bool = False,
        widest: float = math.inf,
    ) -> str:
        width = digits + 4 if aligned else 0
        mean = f"{scale * self.mean:{'+' if signed else ''}.{digits}f}".rjust(width)
        if not self.told(widest=widest):
            return mean
        return f"{mean} ± " + f"{scale * self.ci95:.{digits}f}".rjust(width - 1)

    def to_dict(self) -> dict[str, float | None]:
        """Return JSON-ready fractions; no interval is None."""
        return {"mean": self.mean, "ci95": None if math.isnan(self.ci95) else self.ci95}


@checked
@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval ``[low, high]``.

    Example::

        source = PoolSource(load_pool("digits"))
        report = evaluate(NearestNeighbour(), source, EpisodeSpec(5, 1), episodes=50)
        interval = report.class_interval
        print(f"over new classes {interval.low:.2f} to {interval.high:.2f}")
    """

    low: float
    high: float

    def percent(self) -> str:
        """Return ``"61.2 to 74.9"`` for fractions, in per cent."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


@checked
def mean_interval(scores: Floats, *, comparisons: int = 1) -> float:
    """Return the half-width of the 95 % interval of the mean of independent scores (Student's t).

    Args:
        scores: one number per episode ``[E]``. Not one per query: the queries of an episode share
            its support, so they are not independent.
        comparisons: how many such intervals are to hold together (Bonferroni).

    Returns:
        The half-width; ``nan`` for fewer than two scores.
    """
    n = len(scores)
    if n < 2:
        return float("nan")
    quantile = stats.t.ppf(1 - 0.025 / comparisons, n - 1)
    return float(quantile * scores.std(ddof=1) / np.sqrt(n))


@checked
def paired_p_value(gap: Floats) -> float:
    """Return the two-sided p-value of "the mean difference is zero" (paired t-test).

    Args:
        gap: differences on the same episodes ``[E]``.

    Returns:
        1 if there are fewer than two, or none differs.
    """
    if len(gap) < 2 or not np.any(gap != gap[0]):
        return 1.0 if len(gap) < 2 or gap[0] == 0 else 0.0
    return float(stats.ttest_1samp(gap, 0.0).pvalue)


@checked
def holm(p_values: Floats) -> Floats:
    """Return p-values adjusted for the number of hypotheses (Holm 1979).

    If hypotheses with an adjusted value below 0.05 are rejected, the chance of rejecting any true
    one of the family is at most 5 %.

    Args:
        p_values: of one family of hypotheses ``[H]``.
    """
    n = len(p_values)
    # ascending: the smallest is multiplied by n, the next by n - 1, and so on; the running maximum
    # keeps a larger p-value from ending up below a smaller one
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (n - np.arange(n)))
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


class CalibrationCounts:
    """Running counts for the expected calibration error (Guo et al. 2017, equation 3, 15 equal
    bins)."""

    def __init__(self, bins: int = 15) -> None:
        self._bins = bins
        self._count = np.zeros(bins)
        self._confidence = np.zeros(bins)
        self._correct = np.zeros(bins)

    def add(self, confidence: Floats, correct: npt.NDArray[np.bool_]) -> None:
        """Add predictions.

        Args:
            confidence: probability of the predicted class ``[N]``.
            correct: whether the prediction was right ``[N]``.
        """
        bins = np.minimum((confidence * self._bins).astype(np.int64), self._bins - 1)
        self._count += np.bincount(bins, minlength=self._bins)
        self._confidence += np.bincount(bins, weights=confidence, minlength=self._bins)
        self._correct += np.bincount(bins, weights=correct.astype(np.float64), minlength=self._bins)

    def error(self) -> float:
        """Return the gap between confidence and accuracy in [0, 1], averaged over predictions."""
        # sums, not means, of each bin: its gap is thereby weighted by its number of predictions
        gaps = np.abs(self._confidence - self._correct)
        return float(gaps.sum() / max(self._count.sum(), 1.0))
