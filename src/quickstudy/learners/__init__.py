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
from quickstudy.learners.incontext import AttentiveNeuralProcess, ConditionalNeuralProcess
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork
from quickstudy.learners.predictive import Gaussian

__all__ = [
    "ANIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "AttentiveNeuralProcess",
    "ConditionalNeuralProcess",
    "EmbeddingLearner",
    "Gaussian",
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
