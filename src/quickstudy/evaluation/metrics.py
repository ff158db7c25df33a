"""Metrics: what a score measures, its unit, and whether more of it is better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickstudy.core import ProtocolError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.evaluation.statistics import Mean

__all__ = ["ACCURACY", "METRICS", "MSE", "Metric", "metric_named"]

Floats = npt.NDArray[np.float64]


@checked
@dataclass(frozen=True, slots=True)
class Metric:
    """What the score of an episode measures.

    Args:
        name: its key in documents.
        title: in words.
        unit: that numbers are printed with: ``"%"`` for fractions, ``""`` for plain numbers.
        higher_is_better: whether the largest score is the best.

    Example::

        import numpy as np
        from quickstudy.evaluation import METRICS, Mean
        error = Mean.of([0.5, 0.7, 0.6], over="episodes")
        print(METRICS["mse"].text(error))
        METRICS["mse"].quality(np.array([0.5, 0.7])).argmax()  # 0: the smaller error
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool

    @property
    def fraction(self) -> bool:
        """Whether scores lie between 0 and 1 and are printed in per cent."""
        return self.unit == "%"

    @property
    def difference_unit(self) -> str:
        """The unit of differences: ``"points"`` of fractions, none of plain numbers."""
        return "points" if self.fraction else ""

    @property
    def heading(self) -> str:
        """The title with its unit, for the head of a table: ``"Accuracy, %"``."""
        title = self.title[0].upper() + self.title[1:]
        return f"{title}, {self.unit}" if self.unit else title

    def quality(self, scores: Floats) -> Floats:
        """Return numbers of which the largest is the best: the scores, or errors negated."""
        return scores if self.higher_is_better else -scores

    def cell(self, mean: Mean, *, signed: bool = False) -> str:
        """Return a mean with its interval for a table whose head gives the unit."""
        return mean.cell(signed=signed) if self.fraction else mean.plain(signed=signed)

    def text(self, mean: Mean) -> str:
        """Return ``"96.31 ± 0.24 %"`` or ``"0.0123 ± 0.0004 mean squared error"``."""
        return mean.percent() if self.fraction else f"{mean.plain()} {self.title}"

    def difference(self, gap: Mean) -> str:
        """Return ``"+1.20 ± 0.30 points"``, or the plain difference of two errors."""
        return gap.points() if self.fraction else gap.plain(signed=True)

    def number(self, score: float, *, digits: int = 1) -> str:
        """Return one score without an interval: ``"96.3 %"`` or ``"0.0123"``."""
        return f"{100 * score:.{digits}f} %" if self.fraction else f"{score:.4f}"


ACCURACY = Metric("accuracy", "accuracy", "%", higher_is_better=True)
MSE = Metric("mse", "mean squared error", "", higher_is_better=False)
METRICS = {metric.name: metric for metric in (ACCURACY, MSE)}
"""The metrics by the names that documents give them."""


@checked
def metric_named(name: str) -> Metric:
    """Return a metric.

    Raises:
        ProtocolError: if there is none of this name.
    """
    if name not in METRICS:
        raise ProtocolError(f"there is no metric {name!r}. {nearest_names(str(name), METRICS)}")
    return METRICS[name]
