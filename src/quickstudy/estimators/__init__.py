"""Few-shot tasks in practice: what other tasks teach, and one task with its answers."""

from quickstudy.estimators.learning import learn_prior
from quickstudy.estimators.prior import TaskPrior
from quickstudy.estimators.task import Estimate, FittedTask, fit_task

__all__ = ["Estimate", "FittedTask", "TaskPrior", "fit_task", "learn_prior"]
