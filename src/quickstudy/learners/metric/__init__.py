"""Metric learners: a query is compared with the support in an embedding space."""

from quickstudy.learners.metric.matching import FullContext, MatchingHead, MatchingNetwork
from quickstudy.learners.metric.prototypical import (
    PrototypeHead,
    PrototypicalNetwork,
    check_distance,
    set_temperature,
)

__all__ = [
    "FullContext",
    "MatchingHead",
    "MatchingNetwork",
    "PrototypeHead",
    "PrototypicalNetwork",
    "check_distance",
    "set_temperature",
]
