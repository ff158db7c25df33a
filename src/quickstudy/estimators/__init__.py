"""Estimators: few-shot learning on a user's own examples."""

from quickstudy.estimators.cache import EmbeddingCache
from quickstudy.estimators.choose import ENCODERS, get_embedder
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.embedders import Embedder, Item
from quickstudy.estimators.learning import learn_prior
from quickstudy.estimators.modules import module_embedder
from quickstudy.estimators.prior import TaskPrior
from quickstudy.estimators.task import FittedTask, fit_task

__all__ = [
    "ENCODERS",
    "Embedder",
    "EmbeddingCache",
    "FewShotClassifier",
    "FittedTask",
    "Item",
    "TaskPrior",
    "fit_task",
    "get_embedder",
    "learn_prior",
    "module_embedder",
]
