"""Learners that read a support set in the forward pass: a transformer over sets for classification,
neural processes for regression."""

from quickstudy.learners.incontext.attention import AttentionBlock, MultiheadAttention
from quickstudy.learners.incontext.processes import (
    AttentiveNeuralProcess,
    AttentiveProcessHead,
    ConditionalNeuralProcess,
    ConditionalProcessHead,
)
from quickstudy.learners.incontext.sets import InContextHead, InContextTransformer

__all__ = [
    "AttentionBlock",
    "AttentiveNeuralProcess",
    "AttentiveProcessHead",
    "ConditionalNeuralProcess",
    "ConditionalProcessHead",
    "InContextHead",
    "InContextTransformer",
    "MultiheadAttention",
]
