"""Learners, all behind ``adapt(support) -> state`` and ``predict(state, query) -> logits``."""

from quickstudy.learners.base import EmbeddingLearner, Learner, meta_loss
from quickstudy.learners.floor import NearestNeighbour
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork

__all__ = [
    "EmbeddingLearner",
    "Learner",
    "MatchingNetwork",
    "NearestNeighbour",
    "PrototypicalNetwork",
    "meta_loss",
]
