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
not grow with the number of steps but for one copy of the parameters per step. (The graph of the
last step is kept from the way there: it is needed first.) It is exact, not an approximation;
:func:`descend` does it with ``memory="flat"`` and keeps the whole graph instead with
``memory="unrolled"``. Both give the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.core import ConfigError, DivergenceError

__all__ = [
    "Params",
    "SupportLoss",
    "check_finite",
    "descend",
    "hessian_products",
    "task_gradients",
]

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
    clip: float | None = None,
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
        clip: largest norm of a task's inner gradient, over all its parameters; a longer one is
            shortened, and the outer gradient knows.

    Returns:
        The adapted parameters: a list of one, or of ``K`` with ``every_step``.

    Raises:
        ConfigError: if names or the number of rates do not fit.
        DivergenceError: if a task's support loss stops being finite; says which task and step.
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
    if clip is not None and not clip > 0:
        raise ConfigError(f"clip must be greater than 0, or None; got {clip}.")
    plan = _Plan(loss, tuple(start), steps, len(context), order == "second", every_step, clip)
    if memory == "unrolled" or not torch.is_grad_enabled():
        trajectory = plan.run(dict(start), dict(rates), list(context), keep_graph=True).trajectory
        return trajectory[1:] if every_step else trajectory[-1:]
    inputs = (*start.values(), *rates.values(), *context)
    flat: tuple[Tensor, ...] = _Flat.apply(plan, *inputs)  # type: ignore[no-untyped-call]
    width = len(plan.names)
    return [
        dict(zip(plan.names, flat[at : at + width], strict=True))
        for at in range(0, len(flat), width)
    ]


@dataclass(slots=True)
class _Step:
    """The graph of one step: where it started and the gradient there."""

    params: Params
    context: list[Tensor]
    gradient: Params


@dataclass(slots=True)
class _Path:
    """Parameters before the first step and after each, and the graph of the last step."""

    trajectory: list[Params]
    last: _Step | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the recursion needs to know beside tensors."""

    loss: SupportLoss
    names: tuple[str, ...]
    steps: int
    n_context: int
    second: bool
    every_step: bool
    clip: float | None

    def split(self, tensors: Sequence[Tensor]) -> tuple[Params, Params, list[Tensor]]:
        n = len(self.names)
        start = dict(zip(self.names, tensors[:n], strict=True))
        rates = dict(zip(self.names, tensors[n : 2 * n], strict=True))
        return start, rates, list(tensors[2 * n :])

    def run(
        self,
        params: Params,
        rates: Params,
        context: list[Tensor],
        *,
        keep_graph: bool = False,
        keep_last: bool = False,
    ) -> _Path:
        """Descend.

        Args:
            params: where to start.
            rates: inner rates.
            context: further tensors of the loss.
            keep_graph: record everything, so that the result can be differentiated.
            keep_last: record the last step alone, apart from the result.
        """
        keep_graph = keep_graph and torch.is_grad_enabled()
        path = _Path([params], None)
        losses = []
        for k in range(self.steps):
            if keep_last and k == self.steps - 1:
                step, loss = self.step(params, context, k)
                path.last = step
                gradient = {n: g.detach() for n, g in step.gradient.items()}
            else:
                # what the caller gave is never marked in place; and where one start depends on
                # another (prototypes on the network), a view keeps the gradient partial
                tracked = {
                    n: v.view_as(v)
                    if keep_graph and v.requires_grad
                    else v.detach().requires_grad_()
                    for n, v in params.items()
                }
                gradient, loss = self.gradient(
                    tracked, context, k, create_graph=keep_graph and self.second
                )
            losses.append(loss)
            params = {n: v - rates[n][_row(rates[n], k)] * gradient[n] for n, v in params.items()}
            path.trajectory.append(params)
        check_finite(losses)
        return path

    def step(self, params: Params, context: Sequence[Tensor], k: int) -> tuple[_Step, Tensor]:
        """Return step ``k`` with a graph of its own, and the support losses ``[T]``."""
        leaves = {n: v.detach().requires_grad_() for n, v in params.items()}
        inputs = [c.detach().requires_grad_(c.is_floating_point()) for c in context]
        gradient, loss = self.gradient(leaves, inputs, k, create_graph=self.second)
        return _Step(leaves, inputs, gradient), loss

    def gradient(
        self, params: Params, context: Sequence[Tensor], k: int, *, create_graph: bool
    ) -> tuple[Params, Tensor]:
        """Return the gradient of each task's support loss by its own parameters, and the losses.

        The parameters require gradients.
        """
        found, values = task_gradients(self.loss, params, context, k, create_graph=create_graph)
        if self.clip is not None:
            with torch.enable_grad():
                found = _clipped(found, self.clip)
        return dict(zip(params, found, strict=True)), values


def task_gradients(
    loss: SupportLoss, params: Params, context: Sequence[Tensor], k: int, *, create_graph: bool
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradient of each task's loss by its own parameters, and the losses ``[T]``.

    Args:
        loss: of the support sets.
        params: require gradients.
        context: further tensors of the loss.
        k: inner step.
        create_graph: whether the gradient can be differentiated again.
    """
    with torch.enable_grad():
        losses = loss(params, context, k)
        # tasks are independent, so the gradient of the sum holds each task's own
        found = torch.autograd.grad(
            losses.sum(),
            list(params.values()),
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    return found, losses.detach()


def _clipped(gradients: Sequence[Tensor], largest: float) -> tuple[Tensor, ...]:
    """Shorten each task's gradient to a norm of at most ``largest``."""
    square = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)  # [T]
    # the root of 0 has no derivative
    norm = square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
    factor = (largest / norm).clamp(max=1.0)
    return tuple(g * factor.view(-1, *(1,) * (g.ndim - 1)) for g in gradients)


def check_finite(losses: list[Tensor]) -> None:
    """Raise :class:`DivergenceError` if a task's support loss is not finite, naming the first."""
    table = torch.stack(losses)  # [K, T]
    bad = ~torch.isfinite(table)
    if not bool(bad.any()):
        return
    step, task = (int(v) for v in bad.nonzero()[0])
    before = ", ".join(f"{float(v):.3g}" for v in table[: step + 1, task])
    raise DivergenceError(
        f"the inner loop diverged: the support loss of task {task} (of {table.shape[1]}) is "
        f"{float(table[step, task])} at inner step {step} (of {len(losses)}); it went {before}. "
        + (
            "Lower inner_lr, set inner_clip (10 is a start), or take fewer inner steps."
            if step
            else "It was so before the first step: check the inputs and the meta-parameters."
        )
    )


def _row(rate: Tensor, k: int) -> int:
    """Return which row of a rate holds for step ``k``."""
    return k if len(rate) > 1 else 0


class _Flat(torch.autograd.Function):
    """The inner loop without a graph, and its derivative by the recursion."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        start, rates, context = plan.split(tensors)
        n = len(plan.names)
        ctx.plan = plan
        ctx.by_rate = any(ctx.needs_input_grad[1 + n : 1 + 2 * n])
        wanted = any(ctx.needs_input_grad) and (plan.second or ctx.by_rate)
        path = plan.run(start, rates, [c.detach() for c in context], keep_last=wanted)
        ctx.last = path.last
        inner = [v for params in path.trajectory[1:-1] for v in params.values()]
        ctx.save_for_backward(*tensors, *(inner if wanted else ()))
        kept = path.trajectory[1:] if plan.every_step else path.trajectory[-1:]
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
            if plan.second or ctx.by_rate:
                values = list(start.values()) if k == 0 else inner[(k - 1) * n : k * n]
                step, ctx.last = ctx.last, None
                if step is None:
                    step, _ = plan.step(dict(zip(plan.names, values, strict=True)), context, k)
                pushed = []
                for at, (name, v) in enumerate(zip(plan.names, adjoint, strict=True)):
                    row = _row(rates[name], k)
                    rate = rates[name][row]
                    if ctx.by_rate:
                        slope = v * step.gradient[name].detach()
                        by_rate[at][row] -= slope.sum_to_size(rate.shape)
                    pushed.append(rate * v)
                if plan.second:
                    adjoint = _push(step, adjoint, pushed, by_context)
                del step
            if plan.every_step and k > 0:
                adjoint = [v + o for v, o in zip(adjoint, outer[(k - 1) * n : k * n], strict=True)]
        return (None, *adjoint, *by_rate, *by_context)


def _push(
    step: _Step, adjoint: list[Tensor], pushed: list[Tensor], by_context: list[Tensor]
) -> list[Tensor]:
    """Return the adjoint before a step, and subtract what the context gets from ``by_context``."""
    learned = [i for i, c in enumerate(step.context) if c.requires_grad]
    by = [*step.params.values(), *(step.context[i] for i in learned)]
    products = hessian_products(list(step.gradient.values()), pushed, by)
    for i, h in zip(learned, products[len(adjoint) :], strict=True):
        by_context[i] -= h
    return [v - h for v, h in zip(adjoint, products, strict=False)]


def hessian_products(
    gradients: Sequence[Tensor],
    vectors: Sequence[Tensor],
    by: Sequence[Tensor],
    *,
    again: bool = False,
) -> list[Tensor]:
    """Return the derivatives of ``sum(gradients * vectors)``: Hessian-vector products.

    Args:
        gradients: with a graph.
        vectors: of the same shapes.
        by: what is differentiated by.
        again: keep the graph for another product.
    """
    # a gradient that is constant, as of a linear or an unused parameter, has no graph
    live = [i for i, g in enumerate(gradients) if g.requires_grad]
    if not live:
        return [torch.zeros_like(v) for v in by]
    return list(
        torch.autograd.grad(
            [gradients[i] for i in live],
            by,
            [vectors[i] for i in live],
            retain_graph=again,
            allow_unused=True,
            materialize_grads=True,
        )
    )
