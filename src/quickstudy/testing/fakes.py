"""Fakes: a pool of Gaussian classes, and learners whose score is known in advance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState, normals
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Learner
from quickstudy.tasks import Pool

__all__ = ["ConstantLearner", "OracleLearner", "PositionLearner", "gaussian_pool"]


@checked
def gaussian_pool(
    n_classes: int = 20,
    per_class: int = 20,
    shape: Sequence[int] = (8,),
    *,
    separation: float = 1.0,
    tell_class: bool = False,
    groups_per_class: int | None = None,
    name: str = "gaussian",
    split: str = "all",
    seed: int = 0,
) -> Pool:
    """Return a pool whose classes are Gaussian clouds of unit variance around random centres.

    Args:
        n_classes: number of classes.
        per_class: rows of each class.
        shape: shape of one example.
        separation: standard deviation of the centres; 0 makes all classes alike.
        tell_class: write the class index into the first number of every example, for
            :class:`OracleLearner`.
        groups_per_class: divide the rows of each class among this many groups; ``None`` = no
            groups.
        name: data set, for reports.
        split: which part of it.
        seed: names the pool.

    Returns:
        A pool with ``x`` float32 ``[n_classes * per_class, *shape]``, the same on every machine.

    Raises:
        ConfigError: if a number is below 1.

    Example::

        from quickstudy.testing import gaussian_pool
        pool = gaussian_pool(8, 12, shape=(16,), separation=2.0)
        episode = PoolSource(pool).episodes(EpisodeSpec(5, 1, 3), [0], seed=0)
        episode.support.x  # [1, 5, 16]
    """
    if min(n_classes, per_class, groups_per_class or 1, *shape) < 1:
        raise ConfigError(
            f"a pool needs at least one class, row and number; got n_classes={n_classes}, "
            f"per_class={per_class}, shape={tuple(shape)}."
        )
    width = int(np.prod(shape))
    y = np.arange(n_classes).repeat(per_class)  # [M]
    centres = separation * normals(seed, 0, np.arange(n_classes)[:, None], np.arange(width))
    x = centres[y] + normals(seed, 1, np.arange(len(y))[:, None], np.arange(width))  # [M, width]
    if tell_class:
        x[:, 0] = y
    groups = None
    if groups_per_class is not None:
        row = np.tile(np.arange(per_class), n_classes)
        groups = torch.from_numpy(y * groups_per_class + row % groups_per_class)
    return Pool(
        torch.from_numpy(x).float().reshape(len(y), *shape),
        torch.from_numpy(y),
        tuple(f"class {c:03d}" for c in range(n_classes)),
        name,
        split,
        groups,
    )


def _once_per_task(support: Examples, n_way: int) -> Tensor:
    """Return ``n_way`` once per task ``[T]``: every tensor of a state has a leading task axis."""
    return torch.full((support.y.shape[0],), n_way, device=support.y.device)


@checked
class ConstantLearner(Learner):
    """Predicts the same label for every query, so it scores exactly 1/N on balanced N-way episodes.

    Args:
        label: the label that it predicts.

    Example::

        from quickstudy.testing import ConstantLearner, gaussian_pool
        source = PoolSource(gaussian_pool())
        report = evaluate(ConstantLearner(), source, EpisodeSpec(5, 1), episodes=20)
        assert abs(report.mean - 0.2) < 1e-6
    """

    def __init__(self, label: int = 0) -> None:
        super().__init__()
        self._label = label

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the number of classes ``[T]``; nothing is learned."""
        support.check_labels(n_way)
        return {"n_way": _once_per_task(support, n_way)}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return logit 1 for the label and 0 for all others, ``[T, Q, C]``."""
        logits = x.new_zeros(*x.shape[:2], int(state["n_way"][0]))
        logits[..., self._label] = 1.0
        return logits


@checked
class PositionLearner(Learner):
    """Predicts the label from the place of a query, as if a source sorted its queries by label.

    A score clearly above 1/N shows that a source does sort them.

    Args:
        interleaved: expect the labels 0, 1, 2, 0, 1, 2 instead of 0, 0, 1, 1, 2, 2.

    Example::

        from quickstudy.testing import PositionLearner, gaussian_pool
        source = PoolSource(gaussian_pool())
        report = evaluate(PositionLearner(), source, EpisodeSpec(5, 1), episodes=200)
        assert abs(report.mean - 0.2) < 0.05  # this source shuffles its queries
    """

    transductive = True

    def __init__(self, *, interleaved: bool = False) -> None:
        super().__init__()
        self._interleaved = interleaved

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the number of classes ``[T]``; nothing is learned."""
        support.check_labels(n_way)
        return {"n_way": _once_per_task(support, n_way)}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return logit 1 for the label that belongs to the place, ``[T, Q, C]``."""
        n_way, queries = int(state["n_way"][0]), x.shape[1]
        place = torch.arange(queries, device=x.device)
        label = place % n_way if self._interleaved else place * n_way // queries
        answer = torch.nn.functional.one_hot(label, n_way).to(x.dtype)  # [Q, C]
        return answer.expand(x.shape[0], queries, n_way)


class OracleLearner(Learner):
    """Reads the class from the first number of an example, so it scores 100 %.

    It needs the examples of ``gaussian_pool(tell_class=True)``, which hold their class there.

    Example::

        from quickstudy.testing import OracleLearner, gaussian_pool
        source = PoolSource(gaussian_pool(tell_class=True))
        report = evaluate(OracleLearner(), source, EpisodeSpec(5, 1), episodes=20)
        assert report.mean == 1.0
    """

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the class of each label, ``class`` ``[T, C]``; infinite for a label without
        support."""
        support.check_labels(n_way)
        first = support.x.flatten(2)[..., 0]  # [T, S]
        members = (support.y[..., None] == torch.arange(n_way, device=first.device)) & support.mask[
            ..., None
        ]
        return {"class": first[..., None].masked_fill(~members, torch.inf).amin(1)}  # [T, C]

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return minus the distance between the query's class and each label's, ``[T, Q, C]``."""
        return -100.0 * (x.flatten(2)[..., :1] - state["class"][:, None]).abs()
