"""Estimators: few-shot classification of a user's own examples."""

from quickstudy.embedders.base import Embedder, Item
from quickstudy.embedders.cache import EmbeddingCache
from quickstudy.embedders.choose import ENCODERS, get_embedder
from quickstudy.embedders.modules import module_embedder
from quickstudy.estimators.classifier import FewShotClassifier
from quickstudy.estimators.tabular import TabularInContextClassifier
from quickstudy.estimators.version import TaskVersion
from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.task import FittedTask, fit_task

__all__ = [
    "ENCODERS",
    "Embedder",
    "EmbeddingCache",
    "FewShotClassifier",
    "FittedTask",
    "Item",
    "TabularInContextClassifier",
    "TaskPrior",
    "TaskVersion",
    "fit_task",
    "get_embedder",
    "learn_prior",
    "module_embedder",
]
