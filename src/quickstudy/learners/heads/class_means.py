"""Nearest class mean, each class scored by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import Examples, TaskState, check_state
from quickstudy.learners.classes import class_means, class_weights
from quickstudy.learners.metric import PrototypeHead

__all__ = ["ClassMeanHead"]

# products of queries and means at once: some hundred megabytes
_NUMBERS_AT_ONCE = 1 << 25


class ClassMeanHead(PrototypeHead):
    """The cosine to the mean of each class's examples, computed for each class by itself.

    Mensink, Verbeek, Perronnin and Csurka (2013), "Distance-based image classification:
    generalizing to new classes at near-zero cost", section 3. It answers as a
    :class:`~quickstudy.learners.metric.PrototypeHead` on cosines does; what it adds is that the
    score of a class is the same to the last bit whatever other classes there are: no matrix product
    over classes, whose rounding depends on how many there are.

    Args:
        temperature: logits are cosines divided by it.
        learn_temperature: whether meta-training adjusts it.
    """

    def __init__(self, *, temperature: float = 1.0, learn_temperature: bool = False) -> None:
        super().__init__(
            distance="cosine", temperature=temperature, learn_temperature=learn_temperature
        )

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``prototypes`` ``[T, C, D]``, unit vectors, and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        _, present = class_weights(support.y, support.mask, n_way)
        z = self._inputs(support.x)
        means = F.normalize(class_means(z, support.y, support.mask, n_way), dim=2)
        return {"prototypes": means, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return cosines over the temperature ``[T, Q, C]``."""
        shapes = {"prototypes": (None, x.shape[-1]), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        z, means = F.normalize(x, dim=2), state["prototypes"][:, None]  # [T, 1, C, D]
        at_once = max(1, _NUMBERS_AT_ONCE // max(1, means.numel()))
        parts = [(part[:, :, None] * means).sum(3) for part in z.split(at_once, dim=1)]
        logits = torch.cat(parts, 1) * self.log_scale.exp().to(z.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)
