"""Implicit gradients: the meta-gradient depends on where the inner loop ends, not on its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.learners.gradient.base import GradientLearner, Task
from quickstudy.learners.gradient.inner import (
    Params,
    SupportLoss,
    check_finite,
    clipped,
    hessian_products,
    task_gradients,
)
from quickstudy.learners.gradient.options import GradientOptions, InnerLoop

__all__ = ["IMAML", "proximal_minimum"]


@dataclass(frozen=True, slots=True)
class _ProximalProblem:
    """Minimise ``loss(phi) + strength/2 |phi - start|^2``; see :func:`proximal_minimum`."""

    loss: SupportLoss
    names: tuple[str, ...]
    steps: int
    lr: float
    strength: float
    solver_steps: int
    clip: float | None


@checked
def proximal_minimum(
    loss: SupportLoss,
    start: Params,
    *,
    steps: int,
    lr: float,
    strength: float,
    solver_steps: int = 5,
    context: Sequence[Tensor] = (),
    clip: float | None = None,
) -> Params:
    """Return ``phi = argmin loss(phi) + strength/2 |phi - start|^2`` by gradient descent.

    The derivative is that of the minimum: ``dphi/dstart = (I + H / strength)^-1`` with the Hessian
    ``H`` of the loss at ``phi``, applied by conjugate gradients (Rajeswaran et al. 2019,
    "Meta-Learning with Implicit Gradients", lemma 1 and algorithm 2). It does not depend on the
    steps, so they take no memory; it is as exact as the minimum and the solver are.

    Args:
        loss: of the support sets.
        start: initial parameters ``{name: [T, ...]}``.
        steps: steps of gradient descent.
        lr: learning rate of gradient descent.
        strength: ``lambda``, how strongly the parameters are pulled towards the start.
        solver_steps: steps of conjugate gradients.
        context: further tensors that the loss depends on; they get a gradient too.
        clip: a task's gradient, penalty included, is shortened to this norm; the minimum stays.

    Raises:
        ConfigError: if a number is out of range.
        DivergenceError: if a support loss stops being finite.
    """
    if steps < 1 or solver_steps < 1 or not strength > 0:
        raise ConfigError(
            f"implicit gradients need steps >= 1, solver_steps >= 1 and strength > 0; got {steps}, "
            f"{solver_steps} and {strength}."
        )
    problem = _ProximalProblem(loss, tuple(start), steps, lr, strength, solver_steps, clip)
    found: tuple[Tensor, ...] = _Minimum.apply(problem, *start.values(), *context)  # type: ignore[no-untyped-call]
    return dict(zip(start, found, strict=True))


class _Minimum(torch.autograd.Function):
    """The minimum, and its derivative by the implicit function theorem."""

    @staticmethod
    def forward(ctx: Any, problem: _ProximalProblem, *tensors: Tensor) -> tuple[Tensor, ...]:
        n = len(problem.names)
        start, context = tensors[:n], [c.detach() for c in tensors[n:]]
        values, losses = [v.detach() for v in start], []
        for k in range(problem.steps):
            leaves = {
                name: v.detach().requires_grad_()
                for name, v in zip(problem.names, values, strict=True)
            }
            slope, loss = task_gradients(problem.loss, leaves, context, k, create_graph=False)
            losses.append(loss)
            # the gradient of the whole objective: grad l(phi) + strength (phi - start)
            whole = tuple(
                g + problem.strength * (v - s) for v, g, s in zip(values, slope, start, strict=True)
            )
            if problem.clip is not None:
                whole = clipped(whole, problem.clip)
            values = [v - problem.lr * g for v, g in zip(values, whole, strict=True)]
        check_finite(losses)
        ctx.problem = problem
        ctx.save_for_backward(*values, *context)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        problem: _ProximalProblem = ctx.problem
        n = len(problem.names)
        saved = ctx.saved_tensors
        leaves = [v.detach().requires_grad_() for v in saved[:n]]
        context = [c.detach().requires_grad_(c.is_floating_point()) for c in saved[n:]]
        slope, _ = task_gradients(
            problem.loss,
            dict(zip(problem.names, leaves, strict=True)),
            context,
            problem.steps - 1,
            create_graph=True,
        )

        def multiply(vectors: list[Tensor]) -> list[Tensor]:
            """Return ``(I + H / strength) v``."""
            products = hessian_products(slope, vectors, leaves, again=True)
            return [v + h / problem.strength for v, h in zip(vectors, products, strict=True)]

        # at the minimum grad l(phi, context) + strength (phi - start) = 0. Differentiated, with
        # u = (I + H / strength)^-1 dL/dphi: dL/dstart = u, and
        # dL/dcontext = -(d^2 l / dcontext dphi) u / strength
        solution = _conjugate_gradients(multiply, list(outer), problem.solver_steps)
        learned = [i for i, c in enumerate(context) if c.requires_grad]
        by_context: list[Tensor | None] = [None] * len(context)
        if any(ctx.needs_input_grad[1 + n :]):
            mixed = hessian_products(slope, solution, [context[i] for i in learned])
            for i, h in zip(learned, mixed, strict=True):
                by_context[i] = -h / problem.strength
        return (None, *solution, *by_context)


def _conjugate_gradients(multiply: Any, right: list[Tensor], steps: int) -> list[Tensor]:
    """Solve a symmetric linear system for each task (Hestenes and Stiefel 1952).

    Args:
        multiply: multiplies a vector, a tensor ``[T, ...]`` for each parameter, by the matrix.
        right: right-hand side, likewise.
        steps: number of steps.
    """

    def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
        parts = [(x * y).reshape(len(x), -1).sum(1) for x, y in zip(a, b, strict=True)]
        return torch.stack(parts).sum(0)  # [T]

    def add(a: list[Tensor], factor: Tensor, b: list[Tensor]) -> list[Tensor]:
        return [x + factor.view(-1, *(1,) * (x.ndim - 1)) * y for x, y in zip(a, b, strict=True)]

    solution = [torch.zeros_like(r) for r in right]
    residual, direction = right, right
    size = dot(residual, residual)
    tiny = torch.finfo(size.dtype).tiny
    for _ in range(steps):
        image = multiply(direction)
        curvature = dot(direction, image)
        # a task that is solved, or whose curvature is not positive, keeps its solution
        step = torch.where((curvature > tiny) & (size > tiny), size / curvature, 0.0)
        solution = add(solution, step, direction)
        residual = add(residual, -step, image)
        new = dot(residual, residual)
        direction = add(residual, torch.where(size > tiny, new / size, 0.0), direction)
        size = new
    return solution


class IMAML(GradientLearner):
    """MAML with implicit gradients: adapted parameters minimise the support loss near the start.

    Rajeswaran, Finn, Kakade and Levine (2019), "Meta-Learning with Implicit Gradients".

    *Difference from the paper*: query statistics as in :class:`MAML`; no damping in the solver.

    Args:
        net: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.
        strength: ``lambda``, how strongly parameters are pulled towards the start; 2 in the paper.
        solver_steps: steps of conjugate gradients; 5 in the paper.
        **options: as in :class:`~quickstudy.learners.gradient.base.GradientLearner`.

    Raises:
        ConfigError: if settings do not fit.

    Example::

        learner = IMAML(Conv4(norm="support"), strength=2.0)
        episode = PoolSource(load_pool("digits")).episodes(EpisodeSpec(5, 1), [0], seed=0)
        loss = learner.training_loss(episode, progress=0.0)  # [1]
        loss.mean().backward()
    """

    default_inner = InnerLoop(steps=16, lr=0.05)

    @checked
    def __init__(
        self,
        net: nn.Module,
        *,
        strength: float = 2.0,
        solver_steps: int = 5,
        **options: Unpack[GradientOptions],
    ) -> None:
        super().__init__(net, **options)
        if not strength > 0 or solver_steps < 1:
            raise ConfigError(
                f"strength must be greater than 0 and solver_steps at least 1; got {strength} and "
                f"{solver_steps}."
            )
        if self.inner.memory == "flat":
            raise ConfigError(
                "IMAML keeps no graph of its inner steps, so memory='flat' would change nothing. "
                "Leave memory out."
            )
        self._strength, self._solver_steps = strength, solver_steps

    def descend(self, task: Task, *, steps: int) -> list[Params]:
        """Return the minimum near the start."""
        start = self.start(task)
        if steps == 0:
            return [start]
        found = proximal_minimum(
            partial(self.support_loss, task=task),
            start,
            steps=steps,
            lr=self.inner.lr,
            strength=self._strength,
            solver_steps=self._solver_steps,
            context=(task.support.x,),
            clip=self.inner.clip,
        )
        return [found]
