"""Heads: learners on embeddings ``[T, N, D]``, while the encoder stays frozen."""

from quickstudy.learners.heads.centred import CentredHead
from quickstudy.learners.heads.class_means import ClassMeanHead
from quickstudy.learners.heads.discriminant import DiscriminantHead
from quickstudy.learners.heads.finetuned import FineTunedHead
from quickstudy.learners.heads.forest import ForestHead
from quickstudy.learners.heads.gradient import GradientHead
from quickstudy.learners.heads.held_out import (
    held_out_in,
    held_out_logits,
    held_out_together,
)
from quickstudy.learners.heads.logistic import LogisticHead
from quickstudy.learners.heads.neighbours import NeighbourHead
from quickstudy.learners.heads.ridge import RidgeHead
from quickstudy.learners.heads.vote import VoteHead
from quickstudy.learners.incontext import InContextHead
from quickstudy.learners.metric import PrototypeHead

__all__ = [
    "CentredHead",
    "ClassMeanHead",
    "DiscriminantHead",
    "FineTunedHead",
    "ForestHead",
    "GradientHead",
    "InContextHead",
    "LogisticHead",
    "NeighbourHead",
    "PrototypeHead",
    "RidgeHead",
    "VoteHead",
    "held_out_in",
    "held_out_logits",
    "held_out_together",
]
