"""The inner loop of gradient-based meta-learning: gradient descent on the support set, through
which the outer loop can differentiate.

With parameters ``theta``, inner rates ``a`` and support loss ``l``, the inner loop is ``theta[k+1]
= theta[k] - a[k] * grad l(theta[k])``. Its derivative is a recursion that runs backwards over the
parameters alone (Finn et al. 2017, "MAML", equation 1, differentiated by hand; the adjoint state
method)::

    v[K] = dL/dtheta[K]                             L: the outer loss
    v[k] = v[k+1] - H[k] (a[k] * v[k+1])            H[k]: Hessian of l at theta[k]
    dL/da[k] = -v[k+1] * grad l(theta[k])

Each product with a Hessian needs the graph of one step, which is made again and thrown away. So
memory grows by one copy of the parameters per step, not by a graph. (The graph of the last step is
kept from the forward pass, because the recursion needs it first.) The recursion is exact, not an
approximation. :func:`descend` uses it with ``memory="flat"``; with ``memory="unrolled"`` it keeps
the graphs of all steps. Both give the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quickstudy.core import ConfigError, DivergenceError
from quickstudy.learners.gradient.second import check_second_derivative, explained

__all__ = [
    "Params",
    "SupportLoss",
    "check_finite",
    "clipped",
    "descend",
    "hessian_products",
    "task_gradients",
]

Params = dict[str, Tensor]
"""Parameters by name, each with the leading task axis: ``{name: [T, ...]}``."""

SupportLoss = Callable[[Params, Sequence[Tensor], int], Tensor]
"""``loss(params, context, step) -> [T]``: each task's loss on its support set. A task's loss may
depend on that task's parameters only. ``context`` holds further tensors to differentiate by."""


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

    The result is differentiable by ``start``, ``rates`` and ``context``.

    Args:
        loss: of the support sets.
        start: initial parameters ``{name: [T, ...]}``; an expanded view of shared ones is fine.
        rates: inner learning rates by the same names, ``[K or 1, ...]``: one for each step, or one
            for all steps; the other axes broadcast against a single task's parameter.
        steps: number of steps ``K``, at least 0.
        context: tensors inside ``loss``, beside the parameters, that the outer gradient should
            reach (for example support embeddings of a shared encoder).
        order: ``"first"`` leaves the Hessians out (FOMAML, Finn et al. 2017, section 5.2).
        memory: ``"flat"`` or ``"unrolled"``.
        every_step: return the parameters after each step, not only the last.
        clip: largest norm of a task's inner gradient, over all its parameters; a longer one is
            shortened, and the outer gradient goes through the shortening.

    Returns:
        The adapted parameters: a list of one, or of ``K`` with ``every_step``.

    Raises:
        ConfigError: if names or the number of rates do not fit, or the loss has no second
            derivative and ``order`` wants one.
        DivergenceError: if a task's support loss stops being finite; it names the task and step.
    """
    if steps < 0:
        raise ConfigError(f"steps must be at least 0; got {steps}.")
    if rates.keys() != start.keys():
        odd = sorted(rates.keys() ^ start.keys())
        raise ConfigError(
            f"parameters and inner rates need the same names; {odd} have no counterpart."
        )
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
    plan = _InnerPlan(loss, tuple(start), steps, len(context), order == "second", every_step, clip)
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
    """The graph of one step: the parameters it starts from, and the inner gradient there."""

    params: Params
    context: list[Tensor]
    gradient: Params


@dataclass(slots=True)
class _Path:
    """Parameters before the first step and after each, and the graph of the last step."""

    trajectory: list[Params]
    last: _Step | None


@dataclass(frozen=True, slots=True)
class _InnerPlan:
    """What the recursion needs besides tensors, which autograd needs as separate arguments."""

    loss: SupportLoss
    names: tuple[str, ...]
    steps: int
    n_context: int
    second: bool
    every_step: bool
    clip: float | None

    def split(self, tensors: Sequence[Tensor]) -> tuple[Params, Params, list[Tensor]]:
        """Return start, rates and context from the flat list that autograd sees."""
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
        store: bool = False,
    ) -> _Path:
        """Take all steps.

        Args:
            params: where to start.
            rates: inner rates.
            context: further tensors of the loss.
            keep_graph: record every step, so that the result can be differentiated.
            keep_last: keep the graph of the last step, separate from the result.
            store: put the parameters after each step but the last into memory that is set aside for
                all of them before the first step.
        """
        keep_graph = keep_graph and torch.is_grad_enabled()
        path = _Path([params], None)
        room = self.room(params, rates) if store else None
        losses = []
        for k in range(self.steps):
            if keep_last and k == self.steps - 1:
                step, loss = self.step(params, context, k)
                path.last = step
                gradient = {n: g.detach() for n, g in step.gradient.items()}
            else:
                # never mark the caller's tensor as requiring gradients: a view or a detached copy
                # is differentiated by. Where one start depends on another (prototypes on the
                # network), the gradient by the view is the partial one, which descent needs
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
            # theta[k+1] = theta[k] - a[k] * grad l(theta[k])
            # the result is a tensor of its own: only the steps before it have a place in the room
            places = room if room is not None and k < self.steps - 1 else None
            params = {
                n: torch.sub(
                    v,
                    rates[n][_row(rates[n], k)] * gradient[n],
                    out=None if places is None else places[n][k],
                )
                for n, v in params.items()
            }
            path.trajectory.append(params)
        check_finite(losses)
        return path

    def room(self, params: Params, rates: Params) -> Params:
        """Return memory for the parameters between the steps ``{name: [K - 1, T, ...]}``.

        It is one block for all steps because blocks of their own would lie between the activations
        of the steps: what a step frees would be cut into pieces too small for the next one, and the
        process would grow with every step although no more tensors are alive.
        """
        return {
            n: v.new_empty((self.steps - 1, *v.shape), dtype=torch.result_type(v, rates[n]))
            for n, v in params.items()
        }

    def step(self, params: Params, context: Sequence[Tensor], k: int) -> tuple[_Step, Tensor]:
        """Return step ``k`` with a graph of its own, separate from all others, and the support
        losses ``[T]``."""
        leaves = {n: v.detach().requires_grad_() for n, v in params.items()}
        inputs = [c.detach().requires_grad_(c.is_floating_point()) for c in context]
        gradient, loss = self.gradient(leaves, inputs, k, create_graph=self.second)
        return _Step(leaves, inputs, gradient), loss

    def gradient(
        self, params: Params, context: Sequence[Tensor], k: int, *, create_graph: bool
    ) -> tuple[Params, Tensor]:
        """Return the gradient of each task's support loss by its own parameters, clipped, and the
        losses ``[T]``; the parameters must require gradients."""
        found, values = task_gradients(self.loss, params, context, k, create_graph=create_graph)
        if self.clip is not None:
            with torch.enable_grad():
                found = clipped(found, self.clip)
        return dict(zip(params, found, strict=True)), values


def task_gradients(
    loss: SupportLoss, params: Params, context: Sequence[Tensor], k: int, *, create_graph: bool
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradient of each task's loss by its own parameters, and the losses ``[T]``.

    Args:
        loss: of the support sets.
        params: must require gradients.
        context: further tensors of the loss.
        k: number of the inner step, from 0.
        create_graph: whether the gradient can be differentiated again.
    """
    with torch.enable_grad():
        losses = loss(params, context, k)
        # tasks are independent, so the gradient of the sum is the gradient of each
        with explained():
            found = torch.autograd.grad(
                losses.sum(),
                list(params.values()),
                create_graph=create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
    if create_graph and k == 0:
        check_second_derivative(found)
    return found, losses.detach()


def clipped(gradients: Sequence[Tensor], largest: float) -> tuple[Tensor, ...]:
    """Shorten each task's gradient to a norm of at most ``largest``."""
    square = torch.stack([g.reshape(len(g), -1).square().sum(1) for g in gradients]).sum(0)  # [T]
    # the square root has no derivative at 0
    norm = square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
    factor = (largest / norm).clamp(max=1.0)
    return tuple(g * factor.view(-1, *(1,) * (g.ndim - 1)) for g in gradients)


def check_finite(losses: list[Tensor]) -> None:
    """Raise :class:`DivergenceError` if a task's support loss is not finite, naming the first."""
    table = torch.stack(losses)  # [K, T]
    bad = ~torch.isfinite(table)
    if not bool(bad.any()):
        return
    step, task = (int(v) for v in bad.nonzero()[0])  # the earliest step
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
    """The inner loop without a graph; its derivative is the recursion at the top of this file."""

    @staticmethod
    def forward(ctx: Any, plan: _InnerPlan, *tensors: Tensor) -> tuple[Tensor, ...]:
        start, rates, context = plan.split(tensors)
        n = len(plan.names)
        ctx.plan = plan
        ctx.by_rate = any(ctx.needs_input_grad[1 + n : 1 + 2 * n])
        # first order with fixed rates needs neither Hessians nor inner gradients: nothing is kept
        wanted = any(ctx.needs_input_grad) and (plan.second or ctx.by_rate)
        path = plan.run(start, rates, [c.detach() for c in context], keep_last=wanted, store=wanted)
        ctx.last = path.last
        # theta[1] ... theta[K-1]: theta[0] is an input, theta[K] is never differentiated at
        inner = [v for params in path.trajectory[1:-1] for v in params.values()]
        ctx.save_for_backward(*tensors, *(inner if wanted else ()))
        kept = path.trajectory[1:] if plan.every_step else path.trajectory[-1:]
        return tuple(v for params in kept for v in params.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        plan: _InnerPlan = ctx.plan
        n, saved = len(plan.names), ctx.saved_tensors
        n_inputs = 2 * n + plan.n_context
        start, rates, context = plan.split(saved[:n_inputs])
        inner = saved[n_inputs:]
        adjoint = list(outer[-n:])  # v[K] = dL/dtheta[K]
        by_rate = [torch.zeros_like(rates[name]) for name in plan.names]
        by_context = [torch.zeros_like(c) for c in context]
        for k in reversed(range(plan.steps)):
            if plan.second or ctx.by_rate:
                values = list(start.values()) if k == 0 else inner[(k - 1) * n : k * n]
                step, ctx.last = ctx.last, None
                if step is None:
                    step, _ = plan.step(dict(zip(plan.names, values, strict=True)), context, k)
                scaled = []  # a[k] * v[k+1]
                for at, (name, v) in enumerate(zip(plan.names, adjoint, strict=True)):
                    row = _row(rates[name], k)
                    rate = rates[name][row]
                    if ctx.by_rate:
                        # dL/da[k] = -v[k+1] * grad l(theta[k]), summed over what a rate covers
                        slope = v * step.gradient[name].detach()
                        by_rate[at][row] -= slope.sum_to_size(rate.shape)
                    scaled.append(rate * v)
                if plan.second:
                    adjoint = _adjoint_before(step, adjoint, scaled, by_context)
                del step
            if plan.every_step and k > 0:  # theta[k] is a result too: its own outer gradient joins
                adjoint = [v + o for v, o in zip(adjoint, outer[(k - 1) * n : k * n], strict=True)]
        return (None, *adjoint, *by_rate, *by_context)


def _adjoint_before(
    step: _Step, adjoint: list[Tensor], scaled: list[Tensor], by_context: list[Tensor]
) -> list[Tensor]:
    """Return ``v[k] = v[k+1] - H[k] (a[k] * v[k+1])``, and add the step's part of the gradient by
    the context to ``by_context``, in place.

    Args:
        step: the graph of step ``k``.
        adjoint: ``v[k+1]``.
        scaled: ``a[k] * v[k+1]``.
        by_context: gradients by the context so far.
    """
    learned = [i for i, c in enumerate(step.context) if c.requires_grad]
    by = [*step.params.values(), *(step.context[i] for i in learned)]
    products = hessian_products(list(step.gradient.values()), scaled, by)
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
        gradients: first derivatives, with their graph.
        vectors: of the same shapes.
        by: tensors to differentiate by.
        again: keep the graph for another product.
    """
    # the gradient by a parameter that is unused, or enters linearly, is constant: it has no graph
    live = [i for i, g in enumerate(gradients) if g.requires_grad]
    if not live:
        return [torch.zeros_like(v) for v in by]
    with explained():
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
