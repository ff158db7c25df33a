"""A task on embeddings: its head is chosen, calibrated and judged, with a prior from other tasks.

::

    from quickstudy.fitting import TaskPrior, fit_task

    task = fit_task(TaskPrior.plain(64), embeddings, labels, n_way=5)
    task.proba(queries)  # [Q, 5]
    print(task.expected_accuracy())
"""

from quickstudy.fitting.learn import learn_prior
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.shipped import shipped_prior
from quickstudy.fitting.task import Estimate, FittedTask, fit_task

__all__ = ["Estimate", "FittedTask", "TaskPrior", "fit_task", "learn_prior", "shipped_prior"]
