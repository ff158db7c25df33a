"""Learners that read a support set in the forward pass: neural processes for regression."""

from quickstudy.learners.incontext.attention import AttentionBlock, MultiheadAttention
from quickstudy.learners.incontext.processes import (
    AttentiveNeuralProcess,
    AttentiveProcessHead,
    ConditionalNeuralProcess,
    ConditionalProcessHead,
)

__all__ = [
    "AttentionBlock",
    "AttentiveNeuralProcess",
    "AttentiveProcessHead",
    "ConditionalNeuralProcess",
    "ConditionalProcessHead",
    "MultiheadAttention",
]
