"""Task states: what a learner knows of a task, as plain tensors with the task axis first."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from quickstudy.core.errors import TaskError

__all__ = ["TaskState", "check_state", "n_tasks", "slice_tasks"]

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


def check_state(
    state: TaskState,
    shapes: Mapping[str, tuple[int | None, ...]],
    *,
    learner: str,
    tasks: int,
    more: bool = False,
) -> None:
    """Refuse a state that another learner made.

    Args:
        state: the state to predict from.
        shapes: shape of each tensor the learner needs, without the task axis; ``None`` = any size.
        learner: name of the learner that predicts, for the message.
        tasks: how many tasks the queries belong to.
        more: whether further tensors are allowed, as a subclass may keep some.

    Raises:
        TaskError: if names, shapes or the number of tasks differ.
    """

    def fits(name: str, shape: tuple[int | None, ...]) -> bool:
        if name not in state or state[name].ndim != 1 + len(shape):
            return False
        return all(b in (None, a) for a, b in zip(state[name].shape[1:], shape, strict=True))

    lacking = {n: shape for n, shape in shapes.items() if not fits(n, shape)}
    foreign = {n: tuple(v.shape[1:]) for n, v in state.items() if n not in shapes or n in lacking}
    if lacking or (foreign and not more):
        faults = [f"lacks {_listed(lacking)}"] if lacking else []
        faults += [f"holds {_listed(foreign)}"] if foreign else []
        raise TaskError(
            f"{learner} cannot predict from a state of another learner: it {' and '.join(faults)}. "
            "Predict with the learner that adapted it."
        )
    if n_tasks(state) != tasks:
        raise TaskError(
            f"the state holds {n_tasks(state)} tasks, the queries belong to {tasks}: x needs the "
            "shape [T, Q, ...] with one row of queries for each task."
        )


def _listed(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    """Return the names and shapes of the first three tensors as text; ``?`` is any size."""
    shown = [
        f"{name} [{', '.join(['T', *('?' if n is None else str(n) for n in shape)])}]"
        for name, shape in list(shapes.items())[:3]
    ]
    more = len(shapes) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
