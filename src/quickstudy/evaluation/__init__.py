"""Evaluation: scores with intervals and protocols, paired differences, and cost."""

from quickstudy.evaluation.classes import class_interval
from quickstudy.evaluation.cost import Cost, measure_cost
from quickstudy.evaluation.evaluate import embed_pool, evaluate
from quickstudy.evaluation.likelihood import Likelihood, predictive
from quickstudy.evaluation.metrics import METRICS, Metric
from quickstudy.evaluation.report import Paired, Protocol, Report, compare
from quickstudy.evaluation.statistics import Interval, Mean, mean_interval
from quickstudy.evaluation.streams import StreamReport, evaluate_streams, instance_numbers

__all__ = [
    "METRICS",
    "Cost",
    "Interval",
    "Likelihood",
    "Mean",
    "Metric",
    "Paired",
    "Protocol",
    "Report",
    "StreamReport",
    "class_interval",
    "compare",
    "embed_pool",
    "evaluate",
    "evaluate_streams",
    "instance_numbers",
    "mean_interval",
    "measure_cost",
    "predictive",
]
