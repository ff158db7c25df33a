"""Fine-tuning of a classifier on frozen embeddings: the usual first attempt."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.heads.weights import weighted

__all__ = ["FineTunedHead"]


@checked
class FineTunedHead(Learner):
    """A last layer trained on the support by gradient descent, the encoder being frozen.

    Chen, Liu, Kira, Wang and Huang (2019), "A Closer Look at Few-shot Classification", section 3.2:
    *Baseline*, a linear layer, and with ``cosine`` *Baseline++*, whose logits are scaled cosines
    between an embedding and the weights of a class.

    *Difference from the paper*: every step sees the whole support instead of four examples, and the
    layer starts at zero (Baseline) or at the class means (Baseline++) instead of at random, so
    that the same support gives the same classifier; the rate does not depend on the unit of the
    embeddings. The paper trains its encoder on the training classes; this head takes any.

    The fit is not differentiable: no gradient reaches the embeddings.

    Args:
        cosine: Baseline++ instead of Baseline.
        steps: steps of gradient descent, 100 in the paper.
        lr: learning rate, as a multiple of one over the mean squared length of an embedding with
            its bias feature (Baseline) or of one over ``scale`` squared (Baseline++).
        momentum: of gradient descent, at least 0 and less than 1.
        scale: cosines are multiplied by it; ``None`` = 10. Baseline has none.

    Raises:
        ConfigError: if a number is not positive, a scale is given without ``cosine``, or the
            momentum is out of range.

    Example::

        head = FineTunedHead(cosine=True, steps=50)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    def __init__(
        self,
        *,
        cosine: bool = False,
        steps: int = 100,
        lr: float = 1.0,
        momentum: float = 0.9,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if scale is not None and not cosine:
            raise ConfigError(
                f"scale={scale} multiplies cosines, and without cosine there are none. Leave it "
                "out, or set cosine=True."
            )
        scale = 10.0 if scale is None else scale
        check_positive(steps=steps, lr=lr, scale=scale)
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1); got {momentum}.")
        self.cosine, self.steps, self.lr, self.momentum = cosine, steps, lr, momentum
        self.scale = scale

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``weight`` ``[T, C, D]``, ``bias`` ``[T, C]`` and ``present`` bool ``[T, C]``."""
        # every class weighs the same; padding weighs nothing
        x, y, weights, present = weighted(support, n_way, balanced=True)
        x = x.detach()
        share = weights / weights.sum(1, keepdim=True)  # [T, S]
        # scaled to a mean squared length of 1: neither the rate nor the bias depends on the unit
        unit = (x.square().sum(2) * share).sum(1).sqrt().clamp(min=1e-12)[:, None, None]
        x = x / unit
        means = (y * share[..., None]).transpose(1, 2) @ x  # [T, C, D]
        weight = F.normalize(means, dim=2) if self.cosine else torch.zeros_like(means)
        bias = x.new_zeros(len(x), n_way)

        def loss(weight: Tensor, bias: Tensor) -> Tensor:
            logits = self._logits(weight, bias, x).masked_fill(~present[:, None], -torch.inf)
            # absent classes have minus infinity, and 0 times that is NaN: mask, then sum
            own = logits.log_softmax(2).masked_fill(y == 0, 0.0).sum(2)
            # tasks share no parameter, so the gradient of the sum is that of each task
            return -(own * share).sum()

        # 2 is the mean squared length of an embedding (1) with its bias feature (1)
        rate = self.lr / (self.scale**2 if self.cosine else 2.0)
        weight, bias = self._descend(loss, rate, weight, bias)
        return {"weight": weight / unit, "bias": bias, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits ``[T, Q, C]``."""
        logits = self._logits(state["weight"], state["bias"], x)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def _logits(self, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        if self.cosine:
            return self.scale * F.normalize(x, dim=2) @ F.normalize(weight, dim=2).transpose(1, 2)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    @torch.enable_grad()
    def _descend(
        self, loss: Callable[[Tensor, Tensor], Tensor], rate: float, *start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the layer after heavy-ball descent (Polyak 1964)."""
        now = [value.detach().requires_grad_() for value in start]
        velocity = [torch.zeros_like(value) for value in now]
        for _ in range(self.steps):
            grads = torch.autograd.grad(loss(*now), now, allow_unused=True, materialize_grads=True)
            velocity = [self.momentum * v + g for v, g in zip(velocity, grads, strict=True)]
            moved = [p - rate * v for p, v in zip(now, velocity, strict=True)]
            now = [value.detach().requires_grad_() for value in moved]
        return now[0].detach(), now[1].detach()
