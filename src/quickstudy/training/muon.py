"""Muon: momentum whose matrices are made orthogonal before the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least, check_positive

__all__ = ["Muon", "orthogonalised"]

# of the quintic iteration, as tuned by Jordan et al. (2024): steep at 0, near 1 elsewhere
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrices: Tensor, *, iterations: int = 5) -> Tensor:
    """Return matrices with the same singular vectors and all singular values near 1.

    Newton and Schulz's iteration with a polynomial of degree 5.

    Args:
        matrices: ``[B, M, N]``.
        iterations: how often the polynomial is applied; after five the values lie between about
            0.7 and 1.2.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        square = x @ x.transpose(1, 2)
        x = _A * x + (_B * square + _C * square @ square) @ x
    x = x.transpose(1, 2) if tall else x
    made: Tensor = x.to(matrices.dtype)
    return made


@checked
class Muon(torch.optim.Optimizer):
    """Muon for the matrices of a network; others need another optimiser.

    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks". Matrices of one
    shape are made orthogonal together, so that a network of many small ones takes few calls.

    Args:
        parameters: matrices ``[M, N]``.
        lr: size of a step; an entry changes by about ``lr * 0.2``, as with Adam.
        momentum: of the gradient (Nesterov's).
        weight_decay: share of the weights that a step takes away, times ``lr``.

    Raises:
        ConfigError: if a number is out of range.
        ValueError: if a parameter is no matrix.

    Example::

        from quickstudy.training.muon import Muon
        layer = torch.nn.Linear(4, 3)
        optimiser = Muon([layer.weight], lr=1e-3)
        layer(torch.ones(1, 4)).sum().backward()
        optimiser.step()
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        check_positive(lr=lr)
        check_at_least(0, momentum=momentum, weight_decay=weight_decay)
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(
                        f"Muon is for matrices; got a parameter of shape {list(parameter.shape)}. "
                        "Give it to another optimiser."
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step along the orthogonalised momentum."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for shape, matrices in by_shape.items():
                moves = [self._momentum(p, group["momentum"]) for p in matrices]
                update = orthogonalised(torch.stack(moves))
                # the root mean square of an entry becomes 0.2, near that of Adam (Liu et al. 2025)
                size = 0.2 * max(shape) ** 0.5 * group["lr"]
                for parameter, one in zip(matrices, update, strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["decay"])
                    parameter.add_(one, alpha=-size)
        return loss

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1.0 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)
