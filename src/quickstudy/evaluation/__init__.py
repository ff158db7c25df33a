"""Evaluation: scores with intervals and protocols, paired differences, and cost."""

from quickstudy.evaluation.cost import Cost, measure_cost
from quickstudy.evaluation.evaluate import embed_pool, evaluate
from quickstudy.evaluation.report import Paired, Protocol, Report, compare
from quickstudy.evaluation.statistics import Interval, Mean, class_bootstrap, mean_interval

__all__ = [
    "Cost",
    "Interval",
    "Mean",
    "Paired",
    "Protocol",
    "Report",
    "class_bootstrap",
    "compare",
    "embed_pool",
    "evaluate",
    "mean_interval",
    "measure_cost",
]
