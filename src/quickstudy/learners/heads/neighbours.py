"""Nearest neighbours whose votes count the more, the nearer they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights, squared_distance, without_padding
from quickstudy.learners.metric import check_distance, set_temperature

__all__ = ["NeighbourHead"]


@checked
class NeighbourHead(Learner):
    """The nearest examples of each class vote; the nearer, the more.

    The logit of a class is ``log mean exp(-d / temperature)`` over its ``neighbours`` examples that
    are nearest to the query, ``d`` the squared distance: a kernel estimate of the class's density
    (Loftsgaarden and Quesenberry 1965 with a Gaussian kernel). With one neighbour the answer is
    that of the nearest neighbour; with all it is a Parzen window classifier. Each class votes with
    as many examples as any other, so a class does not win by having more of them.

    Args:
        neighbours: how many examples of each class vote; ``None`` = all.
        distance: ``"euclidean"``, or ``"cosine"``: Euclidean between unit vectors.
        temperature: squared distances are divided by it.
        learn_temperature: whether meta-training adjusts the temperature.

    Raises:
        ConfigError: if a setting is not known or not positive.

    Example::

        head = NeighbourHead(neighbours=1)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    log_scale: Tensor

    def __init__(
        self,
        *,
        neighbours: int | None = None,
        distance: str = "euclidean",
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        check_distance(distance)
        if neighbours is not None and neighbours < 1:
            raise ConfigError(f"neighbours must be at least 1, or None for all; got {neighbours}.")
        set_temperature(self, temperature, learn=learn_temperature)
        self.neighbours, self.distance = neighbours, distance

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the support: ``support`` ``[T, S, D]``, ``members`` bool ``[T, S, C]``."""
        support.check_labels(n_way)
        support = without_padding(support)
        members, present = class_weights(support.y, support.mask, n_way)
        return {"support": self._inputs(support.x), "members": members, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logarithms of the class densities ``[T, Q, C]``."""
        scores = -squared_distance(self._inputs(x), state["support"], state["members"].any(2))
        return self._votes(scores, state["members"])

    def _inputs(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=2) if self.distance == "cosine" else x

    def _votes(self, scores: Tensor, members: Tensor) -> Tensor:
        """Return ``[T, Q, C]`` from minus the squared distances to the support ``[T, Q, S]``."""
        scores = scores * self.log_scale.exp().to(scores.dtype)
        columns = []  # class by class: [T, Q, S, C] at once would be large
        k = scores.shape[2] if self.neighbours is None else min(self.neighbours, scores.shape[2])
        for c in range(members.shape[2]):
            theirs = scores.masked_fill(~members[:, None, :, c], -torch.inf)  # [T, Q, S]
            near = theirs if k == scores.shape[2] else theirs.topk(k, dim=2).values
            count = near.isfinite().sum(2)  # fewer than k where the class is small, 0 if absent
            # log mean exp, with the largest exponent taken out; it stays finite where a class is
            # absent, so that gradients do too
            peak = near.detach().amax(2, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
            votes = (near - peak).exp().sum(2) / count.clamp(min=1)
            tiny = torch.finfo(votes.dtype).tiny
            column = votes.clamp(min=tiny).log() + peak[..., 0]
            columns.append(column.masked_fill(count == 0, -torch.inf))
        return torch.stack(columns, 2)
