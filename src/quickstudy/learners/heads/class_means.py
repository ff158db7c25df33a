"""Nearest class mean, each class scored by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples, TaskState, check_state
from quickstudy.core.arguments import checked
from quickstudy.learners.classes import class_means, class_weights, without_padding
from quickstudy.learners.metric import PrototypeHead

__all__ = ["ClassMeanHead"]

# products of query and mean entries held at once: 2^25 float32 numbers are 134 MB
_PRODUCTS_AT_ONCE = 1 << 25


@checked
class ClassMeanHead(PrototypeHead):
    """The nearness to the mean of each class's examples, computed for each class by itself.

    Mensink, Verbeek, Perronnin and Csurka (2013), "Distance-based image classification:
    generalizing to new classes at near-zero cost", section 3. It gives the answers of a
    :class:`~quickstudy.learners.metric.PrototypeHead`. In addition the score of a class
    is the same to the last bit whatever other classes there are: there is no matrix product over
    classes, whose rounding would depend on their number.

    Args:
        temperature: logits are cosines, or minus squared distances, divided by it.
        learn_temperature: whether meta-training adjusts it.
        distance: ``"cosine"``, or ``"euclidean"`` (squared).

    Example::

        head = ClassMeanHead(temperature=0.1)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        distance: str = "cosine",
    ) -> None:
        super().__init__(
            distance=distance, temperature=temperature, learn_temperature=learn_temperature
        )

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``prototypes`` ``[T, C, D]``, unit vectors for cosines, and ``present`` bool
        ``[T, C]``."""
        support.check_labels(n_way)
        support = without_padding(support)
        _, present = class_weights(support.y, support.mask, n_way)
        z = self._inputs(support.x)
        means = self._inputs(class_means(z, support.y, support.mask, n_way))
        return {"prototypes": means, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return cosines, or minus squared distances, over the temperature ``[T, Q, C]``."""
        shapes = {"prototypes": (None, x.shape[-1]), "present": (None,)}
        check_state(state, shapes, learner=type(self).__name__, tasks=len(x), more=True)
        z, means = self._inputs(x), state["prototypes"][:, None]  # [T, 1, C, D]
        at_once = max(1, _PRODUCTS_AT_ONCE // max(1, means.numel()))
        # elementwise, not a matrix product: see the class
        pieces = [piece[:, :, None] for piece in z.split(at_once, dim=1)]
        if self.distance == "cosine":
            parts = [(piece * means).sum(3) for piece in pieces]
        else:
            parts = [-(piece - means).square().sum(3) for piece in pieces]
        logits = torch.cat(parts, 1) * self.log_scale.exp().to(z.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)
