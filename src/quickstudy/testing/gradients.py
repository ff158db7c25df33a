"""Certified gradients: the meta-gradient against difference quotients that can be trusted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quickstudy.core import Episode, generator
from quickstudy.learners.base import Learner

__all__ = ["check_meta_gradient", "directional_derivatives"]


def directional_derivatives(
    loss: Callable[[], Tensor], parameter: Tensor, direction: Tensor, steps: tuple[float, float]
) -> tuple[float, float]:
    """Return the central difference of ``loss`` along ``direction`` for two step sizes.

    Args:
        loss: evaluates a scalar at the parameter's current value.
        parameter: moved in place, and put back bit for bit.
        direction: of the parameter's shape.
        steps: two step sizes, the larger first.

    Returns:
        Both quotients. Only if they agree does either say anything about the gradient.
    """
    before = parameter.detach().clone()
    quotients = []
    with torch.no_grad():
        for step in steps:
            parameter.copy_(before + step * direction)
            high = float(loss())
            parameter.copy_(before - step * direction)
            quotients.append((high - float(loss())) / (2 * step))
        parameter.copy_(before)
    return quotients[0], quotients[1]


def check_meta_gradient(
    learner: Learner,
    episode: Episode,
    *,
    steps: tuple[float, float] = (1e-5, 2e-6),
    tolerance: float = 1e-4,
    seed: int = 0,
    progress: float = 1.0,
) -> None:
    """Assert that the meta-gradient of every parameter equals its central difference.

    The loss is :meth:`~quickstudy.learners.Learner.training_loss`, the one that is trained.

    Each parameter tensor is checked along one random direction. The two step sizes have to agree
    first: with a kink or a tiny batch variance within reach of the step, a quotient says nothing
    (ReLU and batch norm on five images: -67 where the truth is 0.39).

    Args:
        learner: in float64.
        episode: in float64; at least 8 examples per batch statistic.
        steps: two step sizes, the larger first.
        tolerance: allowed error, relative to the largest directional derivative of the tensor or of
            the loss.
        seed: of the directions.
        progress: share of the meta-training that is done, which some losses depend on.

    Raises:
        AssertionError: if the quotients disagree with each other or with the gradient.
    """

    def loss() -> Tensor:
        return learner.training_loss(episode, progress=progress).mean()

    names, parameters = zip(
        *((n, p) for n, p in learner.named_parameters() if p.requires_grad), strict=True
    )
    # allow_unused: a parameter that the loss never reaches has gradient 0; its quotient decides
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    for i, (name, parameter, gradient) in enumerate(zip(names, parameters, gradients, strict=True)):
        draw = torch.randn(parameter.shape, generator=generator(seed, i), dtype=parameter.dtype)
        direction = draw.to(parameter.device) / draw.norm()
        exact = 0.0 if gradient is None else float((gradient * direction).sum())
        first, second = directional_derivatives(loss, parameter, direction, steps)
        # rounding of the loss itself, about 1e-16, divided by the smaller step
        allowed = tolerance * max(abs(first), abs(second), abs(exact)) + 1e-8
        assert abs(first - second) <= allowed, (
            f"{name}: the difference quotients of two step sizes disagree ({first:.6g} and "
            f"{second:.6g}), so neither can certify the gradient. Use a smooth activation and at "
            "least 8 examples per statistic."
        )
        assert abs(exact - second) <= allowed, (
            f"{name}: the meta-gradient is {exact:.6g} along a random direction, the central "
            f"difference {second:.6g}. Look for a detach, a deepcopy or an optimiser step in adapt."
        )
