"""A task on embeddings: its head is chosen, calibrated and judged, with what other tasks taught."""

from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import Estimate, FittedTask, fit_task

__all__ = ["Estimate", "FittedTask", "TaskPrior", "fit_task", "learn_prior", "shipped_prior"]
