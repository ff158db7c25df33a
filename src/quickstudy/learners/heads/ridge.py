"""Ridge regression on one-hot labels (Bertinetto, Henriques, Torr and Vedaldi 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.learners.base import LeavesOneOut
from quickstudy.learners.metric import class_weights

__all__ = ["RidgeHead"]


class RidgeHead(LeavesOneOut):
    """A linear classifier by ridge regression on one-hot labels, in closed form.

    Bertinetto et al. (2019), "Meta-learning with differentiable closed-form solvers", section 3
    (R2-D2): ``W = (X'X + a I)^-1 X'Y``, by Woodbury's identity (equation 5) where there are fewer
    examples than features; logits are ``scale (x W + b)``.

    *Difference from the paper*: the bias is not penalised (inputs and targets are centred), every
    class weighs as much as any other however many examples it has (``balanced``), the penalty is
    relative to the mean squared length of the centred inputs, so that it does not depend on their
    unit, and the constant that is added to all logits is left out: it changes no probability.

    Args:
        penalty: ``a``, in mean squared lengths of the inputs.
        scale: of the logits.
        balanced: classes weigh the same; otherwise examples do.
        learn: whether meta-training adjusts penalty and scale.

    Raises:
        ConfigError: if the penalty or the scale is not positive.
    """

    log_penalty: Tensor
    log_scale: Tensor

    def __init__(
        self,
        *,
        penalty: float = 1.0,
        scale: float = 10.0,
        balanced: bool = True,
        learn: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("penalty", penalty), ("scale", scale)):
            if not value > 0:
                raise ConfigError(f"{name} must be positive; got {value}.")
        self.balanced = balanced
        for name, value in (("log_penalty", penalty), ("log_scale", scale)):
            start = torch.tensor(math.log(value))
            if learn:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``weight`` ``[T, C, D]``, ``bias`` ``[T, C]`` and ``present`` bool ``[T, C]``."""
        x, y, weights, present = self._weighted(support, n_way)
        centre_x, centre_y = _centre(x, weights), _centre(y, weights)
        root = weights.sqrt()[..., None]
        a, b = root * (x - centre_x), root * (y - centre_y)  # [T, S, D], [T, S, C]
        penalty = self._penalty(a, weights)
        if a.shape[1] < a.shape[2]:
            gram = a @ a.transpose(1, 2) + penalty * torch.eye(a.shape[1]).to(a)
            weight = torch.linalg.solve(gram, b).transpose(1, 2) @ a  # [T, C, S] @ [T, S, D]
        else:
            gram = a.transpose(1, 2) @ a + penalty * torch.eye(a.shape[2]).to(a)
            weight = torch.linalg.solve(gram, a.transpose(1, 2) @ b).transpose(1, 2)
        bias = (centre_y - centre_x @ weight.transpose(1, 2))[:, 0]  # [T, C]
        return {"weight": weight, "bias": bias, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return ``scale (x W + b)`` ``[T, Q, C]``."""
        logits = torch.baddbmm(state["bias"][:, None], x, state["weight"].transpose(1, 2))
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def leave_one_out(self, support: Examples, *, n_way: int) -> Tensor:
        """Residuals divided by ``1 - h`` (Allen 1974, PRESS), the other examples' weights and the
        penalty held.

        With those held it is exact; a refit would also balance the classes anew and measure the
        unit of the penalty anew.
        """
        x, y, weights, present = self._weighted(support, n_way)
        centre_x, centre_y = _centre(x, weights), _centre(y, weights)
        root = weights.sqrt()[..., None]
        a, b = root * (x - centre_x), root * (y - centre_y)
        penalty = self._penalty(a, weights)
        if a.shape[1] < a.shape[2]:
            products = a @ a.transpose(1, 2)
            # K (K + a)^-1 is symmetric: both sides are functions of K
            hat = torch.linalg.solve(products + penalty * torch.eye(a.shape[1]).to(a), products)
        else:
            gram = a.transpose(1, 2) @ a + penalty * torch.eye(a.shape[2]).to(a)
            hat = a @ torch.linalg.solve(gram, a.transpose(1, 2))  # [T, S, S]
        total = weights.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        hat = hat + root * root.transpose(1, 2) / total[..., None]
        fitted = centre_y + hat @ b / root.clamp(min=1e-12)
        leverage = hat.diagonal(dim1=1, dim2=2)[..., None]  # [T, S, 1]
        residual = (y - fitted) / (1 - leverage).clamp(min=1e-6)
        logits: Tensor = (y - residual) * self.log_scale.exp().to(x.dtype)
        own = F.one_hot(support.y.clamp(0, n_way - 1), n_way).bool()
        members, _ = class_weights(support.y, support.mask, n_way)
        alone = own & (members.sum(1) == 1)[:, None]
        return logits.masked_fill(~present[:, None] | alone, -torch.inf)

    def _weighted(self, support: Examples, n_way: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs without padding, one-hot labels, weights, and presence."""
        support.check_labels(n_way)
        members, present = class_weights(support.y, support.mask, n_way)
        x = support.x.masked_fill(~support.mask[..., None], 0)
        y = members.to(x.dtype)
        weights = support.mask.to(x.dtype)
        if self.balanced:
            counts = y.sum(1).clamp(min=1)  # [T, C]
            share = y.sum(1).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
            weights = (y * (share / counts)[:, None]).sum(2)  # [T, S]
        return x, y, weights, present

    def _penalty(self, a: Tensor, weights: Tensor) -> Tensor:
        """Return the penalty ``[T, 1, 1]`` in the unit of the centred, weighted inputs."""
        count = weights.gt(0).sum(1).clamp(min=1)
        # identical examples: any penalty will do, but zero
        unit = (a.square().sum((1, 2)) / count).clamp(min=torch.finfo(a.dtype).eps)
        return (self.log_penalty.exp().to(a.dtype) * unit)[:, None, None]


def _centre(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over examples, ``[T, S, D] -> [T, 1, D]``."""
    total = weights.sum(1).clamp(min=torch.finfo(values.dtype).tiny)
    return ((weights[..., None] * values).sum(1) / total[:, None])[:, None]
