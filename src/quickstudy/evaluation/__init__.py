"""Honest evaluation: intervals, protocols, paired comparison, leak checks."""

from quickstudy.evaluation.comparison import Approach, Cell, Comparison, Difference, Mean, Role
from quickstudy.evaluation.cost import Cost, measure_cost
from quickstudy.evaluation.evaluate import embed_pool, evaluate
from quickstudy.evaluation.leaks import LeakReport, check_leaks
from quickstudy.evaluation.report import Paired, Protocol, Report, compare
from quickstudy.evaluation.statistics import Interval, class_bootstrap, mean_interval

__all__ = [
    "Approach",
    "Cell",
    "Comparison",
    "Cost",
    "Difference",
    "Interval",
    "LeakReport",
    "Mean",
    "Paired",
    "Protocol",
    "Report",
    "Role",
    "check_leaks",
    "class_bootstrap",
    "compare",
    "embed_pool",
    "evaluate",
    "mean_interval",
    "measure_cost",
]
