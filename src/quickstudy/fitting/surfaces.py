"""Smooth functions of a task's size and of its held-out statistics, fitted on auxiliary tasks.

A surface turns a few numbers of a task into one number that is wanted of it, such as the logarithm
of its temperature: ``value = w . clamp((f - mean) / deviation, -3, 3) + constant``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Surface", "fit_surface", "pinball", "size_features"]

# tasks with more examples per class count as having this many
_LARGEST_SHOT = 20.0


def size_features(shots: Tensor, ways: Tensor, *, most_ways: float) -> Tensor:
    """Return a quadratic basis in the logarithms of shots and ways ``[T, 5]``.

    Sizes beyond those that were learned from count as the largest of them, because a quadratic
    extrapolates badly.

    Args:
        shots: examples per class ``[T]``, at least 1.
        ways: classes ``[T]``.
        most_ways: the largest number of classes learned from.
    """
    k = shots.clamp(1, _LARGEST_SHOT).log()
    c = ways.clamp(1, most_ways).log()
    return torch.stack([k, c, k * k, c * c, k * c], 1)


@dataclass(frozen=True, slots=True)
class Surface:
    """A linear function of standardised features.

    Args:
        centre: means of the features ``[F]``.
        scale: standard deviations of the features ``[F]``.
        weight: of the standardised features, the constant last ``[F + 1]``.
    """

    centre: Tensor
    scale: Tensor
    weight: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return values ``[T, F] -> [T]``, in float64.

        Features are clamped to three standard deviations from their means: no auxiliary task lay
        further out.
        """
        x = ((features.double() - self.centre) / self.scale).clamp(-3, 3)
        value: Tensor = x @ self.weight[:-1] + self.weight[-1]
        return value

    def shifted(self, by: float) -> Surface:
        """Return the surface plus a constant."""
        weight = self.weight.clone()
        weight[-1] += by
        return Surface(self.centre, self.scale, weight)

    def to_dict(self) -> dict[str, list[float]]:
        """Return the surface as JSON-ready lists."""
        return {n: getattr(self, n).tolist() for n in ("centre", "scale", "weight")}

    @classmethod
    def from_dict(cls, value: dict[str, list[float]]) -> Surface:
        """Return the surface of :meth:`to_dict`."""
        return cls(
            *(torch.tensor(value[n], dtype=torch.float64) for n in ("centre", "scale", "weight"))
        )

    @classmethod
    def constant(cls, value: float, width: int) -> Surface:
        """Return the surface of ``width`` features that has the same value everywhere."""
        weight = torch.zeros(width + 1, dtype=torch.float64)
        weight[-1] = value
        return cls(torch.zeros(width).double(), torch.ones(width).double(), weight)


def fit_surface(
    features: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    start: float = 0.0,
    ridge: float = 1e-3,
) -> Surface:
    """Return the surface with the least mean loss.

    Args:
        features: one row per task ``[T, F]``.
        loss: maps the surface's values ``[T]`` to one differentiable number.
        start: the constant to begin with.
        ridge: penalty on the squared weights; the constant is not penalised.
    """
    x = features.double()
    centre, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    x = ((x - centre) / scale).clamp(-3, 3)
    best = torch.zeros(x.shape[1] + 1, dtype=torch.float64)
    best[-1] = start
    least = float("inf")
    # a line search may diverge to infinity: the best weights until then are kept, and the search
    # goes on from them with smaller steps
    for rate in (1.0, 0.1, 0.01):
        weight = best.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [weight], lr=rate, max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
        )

        def closure(weight: Tensor = weight, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            nonlocal best, least
            optimiser.zero_grad()
            value = loss(x @ weight[:-1] + weight[-1]) + ridge * weight[:-1].square().sum()
            value.backward()
            if float(value.detach()) < least and bool(weight.isfinite().all()):
                best, least = weight.detach().clone(), float(value.detach())
            return value

        with torch.enable_grad():
            optimiser.step(closure)
        if bool(weight.isfinite().all()):
            break
    return Surface(centre, scale, best)


def pinball(rest: Tensor, level: float, *, smooth: float = 0.02) -> Tensor:
    """Return the loss whose minimum is the ``level`` quantile (Koenker and Bassett 1978).

    ``level r + max(-r, 0)``, with the maximum replaced by a softplus: L-BFGS needs a gradient
    everywhere, and the loss has a kink at 0.

    Args:
        rest: observed minus predicted, any shape.
        level: in (0, 1).
        smooth: width over which the kink is rounded, in the unit of ``rest``.
    """
    return level * rest + smooth * F.softplus(-rest / smooth)
