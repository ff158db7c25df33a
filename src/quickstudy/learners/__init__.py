"""Learners, all behind ``adapt(support) -> state`` and ``predict(state, query) -> logits``."""

from quickstudy.learners.base import EmbeddingLearner, Learner, meta_loss
from quickstudy.learners.floor import NearestNeighbour
from quickstudy.learners.gradient import (
    ANIL,
    FOMAML,
    IMAML,
    MAML,
    InnerLoop,
    MetaSGD,
    ProtoMAML,
    Reptile,
)
from quickstudy.learners.incontext import InContextTransformer
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork

__all__ = [
    "ANIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "EmbeddingLearner",
    "InContextTransformer",
    "InnerLoop",
    "Learner",
    "MatchingNetwork",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoMAML",
    "PrototypicalNetwork",
    "Reptile",
    "meta_loss",
]
