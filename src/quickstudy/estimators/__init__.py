"""Estimators: few-shot learning on a user's own examples."""

from quickstudy.estimators.cache import EmbeddingCache
from quickstudy.estimators.choose import ENCODERS, get_embedder
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.embedders import Embedder, Item
from quickstudy.estimators.modules import module_embedder

__all__ = [
    "ENCODERS",
    "Embedder",
    "EmbeddingCache",
    "FewShotClassifier",
    "Item",
    "get_embedder",
    "module_embedder",
]
