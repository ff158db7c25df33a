"""Certified gradients: the meta-gradient compared with central differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quickstudy.core import Episode, generator
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Learner

__all__ = ["check_meta_gradient", "directional_derivatives"]


@checked
def directional_derivatives(
    loss: Callable[[], Tensor], parameter: Tensor, direction: Tensor, steps: tuple[float, float]
) -> tuple[float, float]:
    """Return the central difference of ``loss`` along ``direction`` for two step sizes.

    The quotient is ``(loss(p + h d) - loss(p - h d)) / (2 h)`` for parameter ``p``, direction ``d``
    and step size ``h``.

    Args:
        loss: evaluates a scalar at the parameter's current value.
        parameter: moved in place, and put back to the same bits.
        direction: of the parameter's shape.
        steps: two step sizes, the larger first.

    Returns:
        Both quotients. If they differ, neither approximates the gradient.

    Example::

        from quickstudy.testing import directional_derivatives
        p, d = torch.tensor([3.0]).double(), torch.tensor([1.0]).double()
        first, second = directional_derivatives(lambda: (p**2).sum(), p, d, (1e-3, 1e-4))
        assert abs(first - 6) < 1e-6  # the derivative of p^2 at 3
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


@checked
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

    The loss is :meth:`~quickstudy.learners.Learner.training_loss`, the one that training minimises.

    Each parameter tensor is checked along one random direction. First the quotients of the two step
    sizes have to agree: where the loss has a kink or a batch variance is near 0, a quotient is far
    from the gradient (ReLU and batch norm on five images: -67, and the gradient is 0.39).

    Args:
        learner: in float64.
        episode: in float64; at least 8 examples per batch statistic.
        steps: two step sizes, the larger first.
        tolerance: allowed error, relative to the largest of the gradient and the two quotients.
        seed: of the directions.
        progress: share of the meta-training that is done, which some losses depend on.

    Raises:
        AssertionError: if the quotients differ from each other or from the gradient.

    Example::

        from quickstudy.testing import check_meta_gradient, gaussian_pool
        learner = PrototypicalNetwork(MLP((6,), (5,), activation=torch.nn.Tanh)).double()
        episode = PoolSource(gaussian_pool(shape=(6,))).episodes(EpisodeSpec(3, 3, 3), [0], seed=0)
        double = [Examples(s.x.double(), s.y, s.mask) for s in (episode.support, episode.query)]
        check_meta_gradient(learner, Episode(*double, n_way=3))  # silent: the gradient is right
    """

    def loss() -> Tensor:
        return learner.training_loss(episode, progress=progress).mean()

    names, parameters = zip(
        *((n, p) for n, p in learner.named_parameters() if p.requires_grad), strict=True
    )
    # allow_unused: a parameter that the loss does not use has no gradient, which is compared as 0
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    for i, (name, parameter, gradient) in enumerate(zip(names, parameters, gradients, strict=True)):
        draw = torch.randn(parameter.shape, generator=generator(seed, i), dtype=parameter.dtype)
        direction = draw.to(parameter.device) / draw.norm()
        exact = 0.0 if gradient is None else float((gradient * direction).sum())
        first, second = directional_derivatives(loss, parameter, direction, steps)
        # 1e-8: rounding of a float64 loss, about 1e-16, divided by the step size, and a margin
        allowed = tolerance * max(abs(first), abs(second), abs(exact)) + 1e-8
        assert abs(first - second) <= allowed, (
            f"{name}: the difference quotients of two step sizes disagree ({first:.6g} and "
            f"{second:.6g}), so neither is the gradient. Use a smooth activation and at "
            "least 8 examples per statistic."
        )
        assert abs(exact - second) <= allowed, (
            f"{name}: the meta-gradient is {exact:.6g} along a random direction, the central "
            f"difference {second:.6g}. Look for a detach, a deepcopy or an optimiser step in adapt."
        )
