"""The inner loop of gradient-based meta-learning: gradient descent on the support set, through
which the outer loop can differentiate.

With parameters ``theta``, inner rates ``a`` and support loss ``l``, the inner loop is ``theta[k+1]
= theta[k] - a[k] * grad l(theta[k])``. Its derivative is a recursion that runs backwards over the
parameters alone (Finn et al. 2017, "MAML", equation 1, differentiated by hand; the adjoint state
method)::

    v[K] = dL/dtheta[K]                             L: the outer loss
    v[k] = v[k+1] - H[k] (a[k] * v[k+1])            H[k]: Hessian of l at theta[k]
    dL/da[k] = -v[k+1] * grad l(theta[k])

Each product with a Hessian needs the graph of one step, made anew and thrown away, so memory does
not grow with the number of steps but for one copy of the parameters per step. It is exact, not an
approximation; :func:`descend` does it with ``memory="flat"`` and keeps the whole graph instead with
``memory="unrolled"``. Both give the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.core import ConfigError

__all__ = ["Params", "SupportLoss", "descend"]

Params = dict[str, Tensor]
"""Parameters by name, each with the leading task axis: ``{name: [T, ...]}``."""

SupportLoss = Callable[[Params, Sequence[Tensor], int], Tensor]
"""``loss(params, context, step) -> [T]``: each task's loss on its support set. A task's loss may
depend on that task's parameters only. ``context`` holds further tensors to be differentiated by."""


def descend(
    loss: SupportLoss,
    start: Params,
    rates: Params,
    *,
    steps: int,
    context: Sequence[Tensor] = (),
    order: Literal["second", "first"] = "second",
    memory: Literal["flat", "unrolled"] = "flat",
    every_step: bool = False,
) -> list[Params]:
    """Return the parameters after gradient descent on each task's support loss.

    The result can be differentiated by ``start``, ``rates`` and ``context``.

    Args:
        loss: of the support sets.
        start: initial parameters ``{name: [T, ...]}``; an expanded view of shared ones is fine.
        rates: inner learning rates by the same names, ``[K or 1, ...]``: one for every step, or one
            for all; behind the first axis they broadcast against a single task's parameter.
        steps: number of steps ``K``, at least 0.
        context: tensors inside ``loss``, beside the parameters, that the outer gradient should
            reach (for example support embeddings of a shared encoder).
        order: ``"first"`` leaves the Hessians out (FOMAML, Finn et al. 2017, section 5.2).
        memory: ``"flat"`` or ``"unrolled"``.
        every_step: return the parameters after each step, not only the last.

    Returns:
        The adapted parameters: a list of one, or of ``K`` with ``every_step``.

    Raises:
        ConfigError: if names or the number of rates do not fit.
    """
    if steps < 0:
        raise ConfigError(f"steps must be at least 0; got {steps}.")
    if rates.keys() != start.keys():
        odd = sorted(rates.keys() ^ start.keys())
        raise ConfigError(f"parameters and inner rates need the same names; {odd} stand alone.")
    for name, rate in rates.items():
        if rate.ndim < 1 or (steps and len(rate) not in (1, steps)):
            raise ConfigError(
                f"the inner rate of {name} has shape {list(rate.shape)}; the first axis must be 1 "
                f"or the number of steps, {steps}."
            )
    if steps == 0:
        return [dict(start)]
    plan = _Plan(loss, tuple(start), steps, len(context), order == "second", every_step)
    if memory == "unrolled":
        trajectory = plan.run(dict(start), dict(rates), list(context), keep_graph=True)
        return trajectory[1:] if every_step else trajectory[-1:]
    inputs = (*start.values(), *rates.values(), *context)
    flat: tuple[Tensor, ...] = _Flat.apply(plan, *inputs)  # type: ignore[no-untyped-call]
    width = len(plan.names)
    return [
        dict(zip(plan.names, flat[at : at + width], strict=True))
        for at in range(0, len(flat), width)
    ]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the recursion needs to know beside tensors."""

    loss: SupportLoss
    names: tuple[str, ...]
    steps: int
    n_context: int
    second: bool
    every_step: bool

    def split(self, tensors: Sequence[Tensor]) -> tuple[Params, Params, list[Tensor]]:
        n = len(self.names)
        start = dict(zip(self.names, tensors[:n], strict=True))
        rates = dict(zip(self.names, tensors[n : 2 * n], strict=True))
        return start, rates, list(tensors[2 * n :])

    def run(
        self, params: Params, rates: Params, context: list[Tensor], *, keep_graph: bool
    ) -> list[Params]:
        """Return the parameters before the first step and after each."""
        keep_graph = keep_graph and torch.is_grad_enabled()
        trajectory = [params]
        for k in range(self.steps):
            # what the caller gave is never marked in place
            tracked = {
                n: v if keep_graph and v.requires_grad else v.detach().requires_grad_()
                for n, v in params.items()
            }
            gradient = self.gradient(tracked, context, k, create_graph=keep_graph and self.second)
            params = {n: v - rates[n][_row(rates[n], k)] * gradient[n] for n, v in params.items()}
            trajectory.append(params)
        return trajectory

    def gradient(
        self, params: Params, context: Sequence[Tensor], k: int, *, create_graph: bool
    ) -> Params:
        """Return the gradient of each task's support loss by its own parameters.

        The parameters require gradients.
        """
        with torch.enable_grad():
            # tasks are independent, so the gradient of the sum holds each task's own
            total = self.loss(params, context, k).sum()
            found = torch.autograd.grad(
                total,
                list(params.values()),
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
        return dict(zip(params, found, strict=True))


def _row(rate: Tensor, k: int) -> int:
    """Return which row of a rate holds for step ``k``."""
    return k if len(rate) > 1 else 0


class _Flat(torch.autograd.Function):
    """The inner loop without a graph, and its derivative by the recursion."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        start, rates, context = plan.split(tensors)
        trajectory = plan.run(start, rates, [c.detach() for c in context], keep_graph=False)
        inner = [v for params in trajectory[1:-1] for v in params.values()]
        ctx.plan = plan
        ctx.save_for_backward(*tensors, *inner)
        kept = trajectory[1:] if plan.every_step else trajectory[-1:]
        return tuple(v for params in kept for v in params.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        n, saved = len(plan.names), ctx.saved_tensors
        n_inputs = 2 * n + plan.n_context
        start, rates, context = plan.split(saved[:n_inputs])
        inner = saved[n_inputs:]
        adjoint = list(outer[-n:])
        by_rate = [torch.zeros_like(rates[name]) for name in plan.names]
        by_context = [torch.zeros_like(c) for c in context]
        for k in reversed(range(plan.steps)):
            values = list(start.values()) if k == 0 else inner[(k - 1) * n : k * n]
            params = {
                name: v.detach().requires_grad_()
                for name, v in zip(plan.names, values, strict=True)
            }
            leaves = [c.detach().requires_grad_(c.is_floating_point()) for c in context]
            gradient = plan.gradient(params, leaves, k, create_graph=plan.second)
            pushed = []
            for at, (name, v) in enumerate(zip(plan.names, adjoint, strict=True)):
                row = _row(rates[name], k)
                rate = rates[name][row]
                by_rate[at][row] -= (v * gradient[name].detach()).sum_to_size(rate.shape)
                pushed.append(rate * v)
            if plan.second:
                learned = [i for i, c in enumerate(leaves) if c.requires_grad]
                by = [*params.values(), *(leaves[i] for i in learned)]
                products = _products(list(gradient.values()), pushed, by)
                adjoint = [v - h for v, h in zip(adjoint, products[:n], strict=True)]
                for i, h in zip(learned, products[n:], strict=True):
                    by_context[i] -= h
            if plan.every_step and k > 0:
                adjoint = [v + o for v, o in zip(adjoint, outer[(k - 1) * n : k * n], strict=True)]
        return (None, *adjoint, *by_rate, *by_context)


def _products(gradients: list[Tensor], vectors: list[Tensor], by: list[Tensor]) -> list[Tensor]:
    """Return the derivatives of ``sum(gradients * vectors)``: Hessian-vector products."""
    # a gradient that is constant, as of a linear or an unused parameter, has no graph
    live = [i for i, g in enumerate(gradients) if g.requires_grad]
    if not live:
        return [torch.zeros_like(v) for v in by]
    return list(
        torch.autograd.grad(
            [gradients[i] for i in live],
            by,
            [vectors[i] for i in live],
            allow_unused=True,
            materialize_grads=True,
        )
    )
