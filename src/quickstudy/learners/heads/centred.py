"""Embeddings centred on the support of their task and scaled to length one, for another head."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights, without_padding

__all__ = ["CentredHead", "Lengths"]

_CENTRE, _SCALE = "centre", "scale"

Lengths = Literal["unit", "task", "raw"]
"""How embeddings are scaled: each to length one, all of a task by one number, or not at all."""


@checked
class CentredHead(Learner):
    """Centres a task's embeddings on its support and scales them to length one, for another head.

    What all examples of a task have in common says nothing about their class, but dominates their
    cosines. The centre is the mean of the class means, shrunk towards zero (the mean of all tasks,
    where :class:`~quickstudy.estimators.TaskPrior` puts it) as if ``prior`` more classes had their
    mean there, because the centre of few classes is a poor estimate. Wang et al. (2019),
    "SimpleShot", section 3.3 (CL2N).

    *Difference from the paper*: the centre is the task's own, not that of the training classes.

    Columns of a table are no directions: a row of one column scaled to length one keeps its sign
    alone. With ``lengths="task"`` all rows of a task are divided by one number, the root of the
    mean squared length in its support, and with ``"raw"`` none is.

    Args:
        head: learns from the centred embeddings.
        prior: how many classes zero counts for in the centre, at least 0.
        lengths: ``"unit"``, ``"task"`` or ``"raw"``.

    Raises:
        ConfigError: if the weight is negative, or there are no such lengths.

    Example::

        head = CentredHead(PrototypeHead(distance="cosine"), prior=1.0)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    def __init__(self, head: Learner, *, prior: float = 0.0, lengths: Lengths = "unit") -> None:
        super().__init__()
        if not prior >= 0:  # infinity is the centre at zero
            raise ConfigError(f"prior must be at least 0 classes; got {prior}.")
        if lengths not in get_args(Lengths):
            raise ConfigError(f"lengths must be 'unit', 'task' or 'raw'; got {lengths!r}.")
        self.head, self.prior, self.lengths = head, prior, lengths
        self.order_sensitive, self.label_sensitive = head.order_sensitive, head.label_sensitive

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the head's state, ``centre`` ``[T, 1, D]``, and with the lengths ``"task"`` also
        ``scale`` ``[T, 1, 1]``."""
        support.check_labels(n_way)
        place = self._place(support, n_way)
        state = self.head.adapt(self._placed_support(place, support), n_way=n_way)
        return {"head." + name: value for name, value in state.items()} | place

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the head's logits ``[T, Q, C]``."""
        inner = {n.removeprefix("head."): v for n, v in state.items() if n.startswith("head.")}
        return self.head.predict(inner, self.placed(state, x))

    def placed(self, state: TaskState, x: Tensor) -> Tensor:
        """Return embeddings as the head gets them: centred and scaled ``[T, N, D]``.

        Args:
            state: what :meth:`adapt` returned.
            x: embeddings ``[T, N, D]``.
        """
        x = x - state[_CENTRE]
        if self.lengths == "unit":
            return F.normalize(x, dim=2)
        return x / state[_SCALE] if self.lengths == "task" else x

    def seen(self, support: Examples, *, n_way: int) -> Examples:
        """Return the support as the head gets it: centred and scaled."""
        return self._placed_support(self._place(support, n_way), support)

    def _place(self, support: Examples, n_way: int) -> TaskState:
        """Return the centre, and the scale if there is one."""
        place = {_CENTRE: self._centre(support, n_way)}
        if self.lengths == "task":
            support = without_padding(support)
            x = (support.x - place[_CENTRE]).masked_fill(~support.mask[..., None], 0)
            count = support.mask.sum(1).clamp(min=1)[:, None, None]
            scale = (x.square().sum((1, 2), keepdim=True) / count).sqrt()
            place[_SCALE] = torch.where(scale > 0, scale, 1.0)
        return place

    def _placed_support(self, place: TaskState, support: Examples) -> Examples:
        support = without_padding(support)
        return Examples(self.placed(place, support.x), support.y, support.mask)

    def _centre(self, support: Examples, n_way: int) -> Tensor:
        """Return the sum of the class means over (number of classes + prior), ``[T, 1, D]``."""
        support = without_padding(support)
        members, present = class_weights(support.y, support.mask, n_way)
        counts = members.sum(1).clamp(min=1)  # [T, C]
        class_size = counts.gather(1, support.y)  # [T, S]: of each example's class
        # one over the class's size: the weighted sum is then the sum of the class means
        weights = (support.mask / class_size).to(support.x.dtype)[..., None]
        classes = present.sum(1)[:, None, None].to(support.x.dtype) + self.prior
        centre: Tensor = (weights * support.x).sum(1, keepdim=True) / classes.clamp(min=1)
        if self.prior:
            return centre
        # a lone class centred on its own mean would have no direction: it stays where it is
        return centre.masked_fill((present.sum(1) < 2)[:, None, None], 0)
