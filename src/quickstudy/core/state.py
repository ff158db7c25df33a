"""Task states: what a learner knows of a task, as plain tensors with the task axis first."""

from __future__ import annotations

from torch import Tensor

from quickstudy.core.errors import TaskError

__all__ = ["TaskState", "n_tasks", "slice_tasks"]

TaskState = dict[str, Tensor]
"""What ``adapt`` returns: names to tensors, each with the leading task axis ``T``."""


def n_tasks(state: TaskState) -> int:
    """Return the number of tasks ``T`` in a state.

    Raises:
        TaskError: if the state is empty or its tensors disagree on the leading axis.
    """
    sizes = {name: value.shape[0] if value.ndim else 0 for name, value in state.items()}
    if len(set(sizes.values())) != 1:
        raise TaskError(
            f"every tensor of a task state needs the same leading task axis; got {sizes}. "
            "Expand per-learner values to [T, ...]."
        )
    return next(iter(sizes.values()))


def slice_tasks(state: TaskState, tasks: slice) -> TaskState:
    """Return the states of some tasks, ``{name: value[tasks]}``."""
    return {name: value[tasks] for name, value in state.items()}
