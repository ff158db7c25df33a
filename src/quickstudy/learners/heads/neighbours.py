"""Nearest neighbours with softly weighted votes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights, squared_distance
from quickstudy.learners.metric import check_distance, set_temperature

__all__ = ["NeighbourHead"]


class NeighbourHead(Learner):
    """The nearest examples of each class vote, near ones more.

    The logit of a class is ``log mean exp(-d / temperature)`` over its ``neighbours`` examples that
    are nearest to the query, ``d`` the squared distance: the kernel estimate of the class's density
    (Loftsgaarden and Quesenberry 1965 with a Gaussian kernel). With one neighbour the answer is
    that of the nearest neighbour; with all it is a Parzen window classifier. Each class votes with
    as many examples as any other, so a class does not win by having more of them.

    Args:
        neighbours: how many examples of a class vote; ``None`` = all.
        distance: ``"euclidean"``, or ``"cosine"``: Euclidean between unit vectors.
        temperature: unit of the squared distances.
        learn_temperature: whether meta-training adjusts the temperature.

    Raises:
        ConfigError: if a setting is not known or not positive.
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
        x = support.x.masked_fill(~support.mask[..., None], 0)
        members, present = class_weights(support.y, support.mask, n_way)
        return {"support": self._inputs(x), "members": members, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logarithms of the class densities ``[T, Q, C]``."""
        scores = -squared_distance(self._inputs(x), state["support"])  # [T, Q, S]
        return self._votes(scores, state["members"])

    def _inputs(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=2) if self.distance == "cosine" else x

    def _votes(self, scores: Tensor, members: Tensor) -> Tensor:
        """Return ``[T, Q, C]`` from minus the squared distances to the support ``[T, Q, S]``."""
        scores = scores * self.log_scale.exp().to(scores.dtype)
        columns = []
        k = scores.shape[2] if self.neighbours is None else min(self.neighbours, scores.shape[2])
        for c in range(members.shape[2]):
            theirs = scores.masked_fill(~members[:, None, :, c], -torch.inf)  # [T, Q, S]
            near = theirs if k == scores.shape[2] else theirs.topk(k, dim=2).values
            found = near.isfinite().sum(2)
            # finite sums, so that gradients stay finite where a class is absent
            peak = near.detach().amax(2, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
            votes = (near - peak).exp().sum(2) / found.clamp(min=1)
            tiny = torch.finfo(votes.dtype).tiny
            column = votes.clamp(min=tiny).log() + peak[..., 0]
            columns.append(column.masked_fill(found == 0, -torch.inf))
        return torch.stack(columns, 2)
