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
from quickstudy.learners.incontext import (
    AttentiveNeuralProcess,
    ConditionalNeuralProcess,
    InContextTransformer,
)
from quickstudy.learners.memory import MANN, SNAIL, LSTMLearner
from quickstudy.learners.metric import MatchingNetwork, PrototypicalNetwork
from quickstudy.learners.predictive import Gaussian
from quickstudy.learners.streams import StreamLearner, stream_logits, stream_loss

__all__ = [
    "ANIL",
    "FOMAML",
    "IMAML",
    "MAML",
    "MANN",
    "SNAIL",
    "AttentiveNeuralProcess",
    "ConditionalNeuralProcess",
    "EmbeddingLearner",
    "Gaussian",
    "InContextTransformer",
    "InnerLoop",
    "LSTMLearner",
    "Learner",
    "MatchingNetwork",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoMAML",
    "PrototypicalNetwork",
    "Reptile",
    "StreamLearner",
    "meta_loss",
    "stream_logits",
    "stream_loss",
]
