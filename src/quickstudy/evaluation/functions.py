"""Regression tasks as pictures: the points of the support and what a learner makes of them."""

from __future__ import annotations

import html
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from quickstudy.core import EpisodeSpec, TaskError
from quickstudy.evaluation.likelihood import SHARE, predictive
from quickstudy.learners.base import Learner
from quickstudy.pages.curves import curve_chart
from quickstudy.tasks import TaskSource

__all__ = ["KnownFunctions", "draw_function", "function_chart"]

_POINTS = 161  # at which a function is drawn


@runtime_checkable
class KnownFunctions(Protocol):
    """A source that knows the functions of its tasks everywhere, without noise."""

    def function_values(self, task_ids: list[int], x: Tensor, *, seed: int) -> Tensor:
        """Return the functions of tasks at inputs ``[N]``, as ``[T, N]``."""


@torch.no_grad()
def function_chart(
    learner: Learner, source: TaskSource, spec: EpisodeSpec, *, task_id: int, seed: int
) -> str:
    """Return one task as SVG: support, mean, 90 % interval, and the function if it is known.

    Args:
        learner: adapts to the support.
        source: regression on one number.
        spec: number of support points and queries.
        task_id: number of the task.
        seed: names the list of tasks.

    Raises:
        TaskError: if inputs are more than one number.
    """
    episode = source.episodes(spec, [task_id], seed=seed)
    support, query = episode.support, episode.query
    if support.x.ndim != 3 or support.x.shape[2] != 1 or not episode.regression:
        raise TaskError(
            "only regression on one number can be drawn; got inputs "
            f"{list(support.x.shape[2:])}. Leave the picture out."
        )
    real = support.mask[0]
    inputs = torch.cat([support.x[0, real, 0], query.x[0, query.mask[0], 0]])
    x = torch.linspace(float(inputs.min()), float(inputs.max()), _POINTS)
    own = next(learner.parameters(), None)
    where = torch.device("cpu") if own is None else own.device
    learner.eval()
    moved = support.to(where)
    said = predictive(learner, moved, x[None, :, None].to(where))
    if said is None:
        mean = learner.predict(learner.adapt(moved, n_way=1), x[None, :, None].to(where))[0, :, 0]
        interval = None
    else:
        mean = said.mean[0]
        low, high = (end[0].tolist() for end in said.interval(SHARE))
        interval = (low, high)
    truth = None
    if isinstance(source, KnownFunctions):
        truth = source.function_values([task_id], x, seed=seed)[0].tolist()
    points = list(zip(support.x[0, real, 0].tolist(), support.y[0, real].tolist(), strict=True))
    label = f"Task {task_id}: {len(points)} points, the learner's mean and 90 % interval."
    return curve_chart(x.tolist(), mean.tolist(), interval, points=points, truth=truth, label=label)


def draw_function(
    learner: Learner,
    source: TaskSource,
    spec: EpisodeSpec,
    *,
    task_id: int,
    seed: int,
    caption: str,
) -> str:
    """Return one task as an HTML figure, see :func:`function_chart`.

    Args:
        learner: adapts to the support.
        source: regression on one number.
        spec: number of support points and queries.
        task_id: number of the task.
        seed: names the list of tasks.
        caption: plain text; what the lines mean is added.
    """
    chart = function_chart(learner, source, spec, task_id=task_id, seed=seed)
    known = ", dashed the function itself" if isinstance(source, KnownFunctions) else ""
    meaning = f"Dots: the support; line and band: mean and 90 % interval{known}."
    return (
        f'<figure class="function"><figcaption>{html.escape(caption)} {meaning}</figcaption>'
        f'<div style="max-width:34rem">{chart}</div></figure>'
    )
