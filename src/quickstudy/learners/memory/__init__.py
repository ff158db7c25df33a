"""Memory learners: the support is read in order into the state of a network."""

from quickstudy.learners.memory.lstm import LSTMHead, LSTMLearner
from quickstudy.learners.memory.mann import MANN, MANNHead
from quickstudy.learners.memory.sequence import SequenceHead
from quickstudy.learners.memory.snail import SNAIL, SNAILHead

__all__ = [
    "MANN",
    "SNAIL",
    "LSTMHead",
    "LSTMLearner",
    "MANNHead",
    "SNAILHead",
    "SequenceHead",
]
