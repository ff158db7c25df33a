"""Inputs seen from the middle of the task: centred on its support, on the unit sphere."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_weights

__all__ = ["CentredHead"]

_CENTRE = "centre"


class CentredHead(Learner):
    """Centres a task's embeddings on the task, scales them to length one, and asks another head.

    What all examples of a task share says nothing about their class, but rules their cosines. The
    centre is the mean of the class means, drawn towards zero (the mean of all tasks, where
    :class:`~quickstudy.estimators.TaskPrior` puts it) as if ``prior`` more classes lay there: few
    classes say little about the middle. Wang et al. (2019), "SimpleShot", section 3.3 (CL2N).

    *Difference from the paper*: the centre is the task's own, not that of the training classes.

    Args:
        head: learns from the centred embeddings.
        prior: weight of zero, in classes, at least 0.

    Raises:
        ConfigError: if the weight is negative.
    """

    family: Family = "baseline"

    def __init__(self, head: Learner, *, prior: float = 0.0) -> None:
        super().__init__()
        if not prior >= 0:
            raise ConfigError(f"prior must be at least 0 classes; got {prior}.")
        self.head, self.prior = head, prior
        self.order_sensitive, self.label_sensitive = head.order_sensitive, head.label_sensitive

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return the head's state, and ``centre`` ``[T, 1, D]``."""
        support.check_labels(n_way)
        centre = self._centre(support, n_way)
        state = self.head.adapt(self._seen_from(centre, support), n_way=n_way)
        return {"head." + name: value for name, value in state.items()} | {_CENTRE: centre}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the head's logits ``[T, Q, C]``."""
        inner = {n.removeprefix("head."): v for n, v in state.items() if n.startswith("head.")}
        return self.head.predict(inner, F.normalize(x - state[_CENTRE], dim=2))

    def seen(self, support: Examples, *, n_way: int) -> Examples:
        """Return the support as the head sees it: centred, of length one."""
        return self._seen_from(self._centre(support, n_way), support)

    def _centre(self, support: Examples, n_way: int) -> Tensor:
        members, present = class_weights(support.y, support.mask, n_way)
        x = support.x.masked_fill(~support.mask[..., None], 0)
        counts = members.sum(1).clamp(min=1)  # [T, C]
        own = counts.gather(1, support.y.clamp(0, n_way - 1))  # [T, S]: examples of its class
        weights = (support.mask / own).to(x.dtype)[..., None]
        classes = present.sum(1)[:, None, None].to(x.dtype) + self.prior
        centre: Tensor = (weights * x).sum(1, keepdim=True) / classes.clamp(min=1)
        if self.prior:
            return centre
        # from its own place a lone class has no direction
        return centre.masked_fill((present.sum(1) < 2)[:, None, None], 0)

    @staticmethod
    def _seen_from(centre: Tensor, support: Examples) -> Examples:
        x = support.x.masked_fill(~support.mask[..., None], 0)
        return Examples(F.normalize(x - centre, dim=2), support.y, support.mask)
