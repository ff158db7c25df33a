"""Embeddings centred on the support of their task and scaled to length one, for another head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights, without_padding

__all__ = ["CentredHead"]

_CENTRE = "centre"


@checked
class CentredHead(Learner):
    """Centres a task's embeddings on its support and scales them to length one, for another head.

    What all examples of a task have in common says nothing about their class, but dominates their
    cosines. The centre is the mean of the class means, shrunk towards zero (the mean of all tasks,
    where :class:`~quickstudy.estimators.TaskPrior` puts it) as if ``prior`` more classes had their
    mean there, because the centre of few classes is a poor estimate. Wang et al. (2019),
    "SimpleShot", section 3.3 (CL2N).

    *Difference from the paper*: the centre is the task's own, not that of the training classes.

    Args:
        head: learns from the centred embeddings.
        prior: how many classes zero counts for in the centre, at least 0.

    Raises:
        ConfigError: if the weight is negative.

    Example::

        head = CentredHead(PrototypeHead(distance="cosine"), prior=1.0)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    def __init__(self, head: Learner, *, prior: float = 0.0) -> None:
        super().__init__()
        if not prior >= 0:  # infinity is the centre at zero
            raise ConfigError(f"prior must be at least 0 classes; got {prior}.")
        self.head, self.prior = head, prior
        self.order_sensitive, self.label_sensitive = head.order_sensitive, head.label_sensitive

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the head's state, and ``centre`` ``[T, 1, D]``."""
        support.check_labels(n_way)
        centre = self._centre(support, n_way)
        state = self.head.adapt(self._centred(centre, support), n_way=n_way)
        return {"head." + name: value for name, value in state.items()} | {_CENTRE: centre}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the head's logits ``[T, Q, C]``."""
        inner = {n.removeprefix("head."): v for n, v in state.items() if n.startswith("head.")}
        return self.head.predict(inner, F.normalize(x - state[_CENTRE], dim=2))

    def seen(self, support: Examples, *, n_way: int) -> Examples:
        """Return the support as the head gets it: centred and of length one."""
        return self._centred(self._centre(support, n_way), support)

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

    @staticmethod
    def _centred(centre: Tensor, support: Examples) -> Examples:
        support = without_padding(support)
        return Examples(F.normalize(support.x - centre, dim=2), support.y, support.mask)
