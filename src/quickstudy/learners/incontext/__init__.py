"""Learners that read a support set in the forward pass: transformers over sets and over tables for
classification, neural processes for regression."""

from quickstudy.learners.incontext.attention import AttentionBlock, MultiheadAttention
from quickstudy.learners.incontext.processes import (
    AttentiveNeuralProcess,
    AttentiveProcessHead,
    ConditionalNeuralProcess,
    ConditionalProcessHead,
)
from quickstudy.learners.incontext.sets import InContextHead, InContextTransformer
from quickstudy.learners.incontext.table_weights import load_table_learner
from quickstudy.learners.incontext.tables import TableInContext

__all__ = [
    "AttentionBlock",
    "AttentiveNeuralProcess",
    "AttentiveProcessHead",
    "ConditionalNeuralProcess",
    "ConditionalProcessHead",
    "InContextHead",
    "InContextTransformer",
    "MultiheadAttention",
    "TableInContext",
    "load_table_learner",
]
