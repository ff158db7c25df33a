"""Embedders: they read what a user gives (images, texts, tables, arrays) and embed each example."""

from quickstudy.embedders.base import Embedder, FixedEmbedder, Item
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import ENCODERS, get_embedder
from quickstudy.embedders.modules import module_embedder

__all__ = [
    "ENCODERS",
    "Embedder",
    "EmbeddingCache",
    "FixedEmbedder",
    "Item",
    "get_embedder",
    "module_embedder",
]
