"""Classes as Gaussians whose means are drawn from a Gaussian."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.learners.base import LeavesOneOut
from quickstudy.learners.metric import class_weights

__all__ = ["GaussianHead"]


class GaussianHead(LeavesOneOut):
    """The Bayesian version of the nearest mean: the posterior predictive density of each class.

    Examples of a class are ``x ~ N(m, I)``, means ``m ~ N(0, diag(b))``, ``b`` the variance between
    classes: probabilistic linear discriminant analysis (Ioffe 2006; Prince and Elder 2007, "PLDA",
    section 3) in coordinates where the variance within classes is one, as
    :class:`~quickstudy.estimators.TaskPrior` makes them. After ``n`` examples with mean ``c``::

        m | examples ~ N(r c, diag(v)),   v = b / (1 + n b),   r = n v
        x | examples ~ N(r c, 1 + v)

    so few examples are trusted less than many, direction by direction, and a class with one example
    is wider than a class with ten. Where all shots are equal and ``b`` is large this is the nearest
    prototype. What no class explains better than the prior does, ``N(0, 1 + b)``, is unknown.

    Args:
        between: ``b`` ``[D]``, at least 0; or one number for all directions.
        temperature: log densities are divided by it.

    Raises:
        ConfigError: if a variance is negative, all are zero, or the temperature is not positive.
    """

    between: Tensor
    log_scale: Tensor

    def __init__(self, between: Tensor | float = 1.0, *, temperature: float = 1.0) -> None:
        super().__init__()
        variance = torch.as_tensor(between, dtype=torch.get_default_dtype()).clone()
        if variance.ndim > 1 or not bool((variance >= 0).all()) or not bool((variance > 0).any()):
            raise ConfigError(
                "between must be the variances [D] of class means: none negative, not all zero; "
                f"got shape {tuple(variance.shape)}."
            )
        if not temperature > 0:
            raise ConfigError(f"temperature must be positive; got {temperature}.")
        self.register_buffer("between", variance)
        self.register_buffer("log_scale", -torch.tensor(temperature).log())

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``means`` and ``variances`` of the predictive densities ``[T, C, D]``, and
        ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        members, present = class_weights(support.y, support.mask, n_way)
        x = support.x.masked_fill(~support.mask[..., None], 0)
        sums = members.to(x.dtype).transpose(1, 2) @ x  # [T, C, S] @ [T, S, D] -> [T, C, D]
        means, variances = self._predictive(sums, members.sum(1)[..., None].to(x.dtype))
        return {"means": means, "variances": variances, "present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return log densities but for a constant, divided by the temperature ``[T, Q, C]``."""
        precision = 1 / state["variances"]  # [T, C, D]
        weighted = precision * state["means"]
        square = x.square() @ precision.transpose(1, 2) - 2 * x @ weighted.transpose(1, 2)
        constant = (weighted * state["means"] - precision.log()).sum(2)  # [T, C]
        logits = -0.5 * (square + constant[:, None]) * self.log_scale.exp().to(x.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def leave_one_out(self, support: Examples, *, n_way: int) -> Tensor:
        """Only the density of the example's own class changes."""
        state = self.adapt(support, n_way=n_way)
        logits = self.predict(state, support.x)
        members, _ = class_weights(support.y, support.mask, n_way)
        x = support.x.masked_fill(~support.mask[..., None], 0)
        sums = members.to(x.dtype).transpose(1, 2) @ x
        y = support.y.clamp(0, n_way - 1)
        left = members.sum(1).gather(1, y)[..., None].to(x.dtype) - 1  # [T, S, 1]
        rest = sums.gather(1, y[..., None].expand(-1, -1, x.shape[2])) - x  # [T, S, D]
        mean, variance = self._predictive(rest, left.clamp(min=0))
        own = -0.5 * ((x - mean).square() / variance + variance.log()).sum(2)  # [T, S]
        own = (own * self.log_scale.exp().to(x.dtype)).masked_fill(left[..., 0] <= 0, -torch.inf)
        return torch.where(F.one_hot(y, n_way).bool(), own[..., None], logits)

    def log_prior(self, x: Tensor) -> Tensor:
        """Return the log density of a new class's first example, on the scale of the logits.

        Args:
            x: queries ``[T, Q, D]``.

        Returns:
            ``[T, Q]``: where it exceeds every logit, the query fits no class.
        """
        variance = 1 + self.between.to(x.dtype).expand(x.shape[2])
        value = -0.5 * (x.square() / variance + variance.log()).sum(2)
        return value * self.log_scale.exp().to(x.dtype)

    def _predictive(self, sums: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the next example after ``n`` with these sums."""
        between = self.between.to(sums.dtype)
        variance = between / (1 + n * between)
        return variance * sums, (1 + variance).expand_as(sums)
