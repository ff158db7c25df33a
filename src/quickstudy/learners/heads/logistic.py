"""Multinomial logistic regression, many tasks at once, by Newton's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core import Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.heads.kernels import check_width, gaussian_kernel
from quickstudy.learners.heads.weights import weighted

__all__ = ["LogisticHead"]

_LARGEST_LOGIT_CHANGE = 10.0  # by one Newton step
_NEWTON_STEPS, _LINE_SEARCH_STEPS, _CONJUGATE_GRADIENT_STEPS = 50, 25, 100


@checked
class LogisticHead(Learner):
    """Logistic regression with an L2 penalty on the weights and a free bias.

    Minimises ``sum_i w_i cross_entropy_i + |W|^2 / (2 c)`` where the ``w_i`` are 1 (scikit-learn's
    ``LogisticRegression(C=c)``), or with ``balanced`` make every class weigh the same
    (``class_weight="balanced"``). Newton's method with conjugate gradients (Nocedal and Wright
    2006, section 7.1) and a backtracking line search, on all tasks together; inputs are first
    rotated into the span of the support, where the solution lies.

    The fit is not differentiable: no gradient reaches the embeddings.

    Args:
        c: inverse strength of the penalty.
        temperature: logits are divided by it after the fit.
        balanced: every class has the same total weight; otherwise every example has weight 1.
        kernel_width: width of a Gaussian kernel whose features replace the inputs; ``None`` = the
            inputs themselves, see :func:`~quickstudy.learners.heads.kernels.gaussian_kernel`.
        tolerance: a task is done when no entry of its gradient is larger than this.

    Raises:
        ConfigError: if a number is not positive.

    Example::

        head = LogisticHead(c=1.0)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    log_c: Tensor
    log_scale: Tensor

    def __init__(
        self,
        *,
        c: float = 1.0,
        temperature: float = 1.0,
        balanced: bool = False,
        kernel_width: float | None = None,
        tolerance: float = 1e-4,
    ) -> None:
        super().__init__()
        check_width(kernel_width)
        self.kernel_width = kernel_width
        check_positive(c=c, temperature=temperature, tolerance=tolerance)
        self.balanced, self.tolerance = balanced, tolerance
        self.register_buffer("log_c", torch.tensor(math.log(c)))
        self.register_buffer("log_scale", torch.tensor(-math.log(temperature)))

    @torch.no_grad()
    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``weight`` ``[T, C, D]``, or with a kernel the examples ``support`` and their
        ``weight`` ``[T, C, S]``; ``bias`` ``[T, C]`` and ``present`` bool ``[T, C]``."""
        x, y, weights, present = weighted(support, n_way, balanced=self.balanced)
        if self.kernel_width is not None:
            # padding has no weight, but distances are computed around the mean of all rows: it
            # must not pull that away from the examples
            count = support.mask.sum(1).clamp(min=1)[:, None, None]
            x = torch.where(support.mask[..., None], x, x.sum(1, keepdim=True) / count)
        features, back = self._features(x, support.mask)
        problem = _Problem(features, y, weights, present, torch.exp(-self.log_c.to(x.dtype)))
        w = problem.minimise(self.tolerance)  # [T, C, R+1]
        weight = w[..., :-1] if back is None else w[..., :-1] @ back
        state = {"weight": weight, "bias": w[..., -1], "present": present}
        return state if self.kernel_width is None else state | {"support": x}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return ``(x W + b) / temperature`` ``[T, Q, C]``."""
        if self.kernel_width is not None:
            x = gaussian_kernel(x, state["support"], self.kernel_width)
        logits = torch.baddbmm(state["bias"][:, None], x, state["weight"].transpose(1, 2))
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def _features(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features ``[T, S, R]`` in which the penalty is ``|w|^2``, and the map ``[T, R, D
        or S]`` from weights on them to weights on inputs or kernel values; ``None`` where both are
        the same."""
        if self.kernel_width is not None:
            # the penalty of a kernel expansion is a' K a; with K = L L' it is |w|^2 for w = L' a,
            # and the rows of L are the features. In float64: near duplicates leave small pivots
            kernel = gaussian_kernel(x.double(), x.double(), self.kernel_width)
            both = mask[:, None] & mask[..., None]
            one = torch.eye(x.shape[1]).to(kernel)
            # padding is orthogonal to all; the small ridge keeps K definite where examples repeat
            kernel = torch.where(both, kernel, one) + 1e-6 * one
            root = torch.linalg.cholesky(kernel)  # [T, S, S]
            back = torch.linalg.solve_triangular(root, one.expand_as(root), upper=False)
            return root.to(x.dtype), (back * mask[:, None]).to(x.dtype)
        if x.shape[1] < x.shape[2]:
            # fewer examples than inputs: with X' = Q R the solution is Q w, and X Q = R' are
            # features
            basis, triangle = torch.linalg.qr(x.transpose(1, 2))  # [T, D, S], [T, S, S]
            return triangle.transpose(1, 2), basis.transpose(1, 2)
        return x, None


class _Problem:
    """The penalised losses of ``T`` tasks as a function of ``w`` ``[T, C, R+1]``, bias last.

    ``loss(w) = - sum_i weights_i log p_i[y_i] + penalty/2 |w|^2`` with ``p_i = softmax(x_i w')``.
    """

    def __init__(
        self, x: Tensor, y: Tensor, weights: Tensor, present: Tensor, penalty: Tensor
    ) -> None:
        self.x = torch.cat([x, torch.ones_like(x[..., :1])], 2)  # [T, S, R+1]
        self.y, self.weights, self.absent = y, weights[..., None], ~present[:, None]
        self.penalty = penalty * torch.ones_like(self.x[0, 0])
        self.penalty[-1] = 0  # the bias is free
        self.classes = present.sum(1)[:, None, None].clamp(min=1)

    def outputs(self, w: Tensor) -> Tensor:
        """Return the logits ``[T, S, C]`` of the support."""
        return (self.x @ w.transpose(1, 2)).masked_fill(self.absent, -torch.inf)

    def loss(self, w: Tensor) -> Tensor:
        """Return the penalised loss ``[T]``."""
        chosen = self.outputs(w).log_softmax(2).masked_fill(self.y == 0, 0).sum(2)
        return -(chosen * self.weights[..., 0]).sum(1) + 0.5 * (self.penalty * w * w).sum((1, 2))

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        """Return the gradient ``[T, C, R+1]``; ``p`` are the probabilities at ``w``."""
        # sum_i weights_i (p_i - y_i) x_i' + penalty w
        by_class = (self.weights * (p - self.y)).transpose(1, 2) @ self.x
        return self._without_common(by_class) + self.penalty * w

    def curvature(self, p: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian times ``v``, ``[T, C, R+1]``; ``p`` are the probabilities at ``w``."""
        # sum_i weights_i (diag(p_i) - p_i p_i') (v x_i) x_i' + penalty v
        u = self.x @ v.transpose(1, 2)  # [T, S, C]
        u = p * (u - (p * u).sum(2, keepdim=True))
        by_class = (self.weights * u).transpose(1, 2) @ self.x
        return self._without_common(by_class) + self.penalty * v

    def _without_common(self, values: Tensor) -> Tensor:
        """Subtract from ``[T, C, R+1]`` its mean over the classes, which is zero but for rounding.

        Adding one number to all biases changes no probability and no penalty, so the curvature in
        that direction is zero: the solver would divide the rounding error by it.
        """
        mean = values.sum(1, keepdim=True) / self.classes
        return (values - mean).masked_fill(self.absent.transpose(1, 2), 0)

    def minimise(self, tolerance: float) -> Tensor:
        """Return the minimum ``[T, C, R+1]``, by Newton's method from zero.

        Args:
            tolerance: a task is done when no entry of its gradient is larger.
        """
        tasks, _, width = self.x.shape
        w = self.x.new_zeros(tasks, self.y.shape[2], width)
        value = self.loss(w)
        rounding = 4 * torch.finfo(w.dtype).eps
        for _ in range(_NEWTON_STEPS):
            p = self.outputs(w).softmax(2)
            gradient = self.gradient(w, p)
            done = gradient.abs().amax((1, 2)) <= tolerance
            if bool(done.all()):
                break
            # the gradient of a task that is done is rounding error: the solver, which runs until
            # all tasks are solved, must not work on it
            gradient = gradient.masked_fill(done[:, None, None], 0)
            step = self._solve(p, gradient)
            # where all probabilities are near 0 or 1 there is hardly any curvature, and a Newton
            # step can be of any length: it is shortened so that no logit changes by more than the
            # limit
            change = (self.x @ step.transpose(1, 2)).abs().amax((1, 2))  # of the logits [T]
            limit = _LARGEST_LOGIT_CHANGE
            step = step * (limit / change.clamp(min=limit))[:, None, None]
            slope = (gradient * step).sum((1, 2))  # [T], at least 0: how fast the loss falls
            t = torch.ones_like(value)
            for _ in range(_LINE_SEARCH_STEPS):
                new = self.loss(w - t[:, None, None] * step)
                # sufficient decrease (Armijo); a task at its minimum cannot fall any further, and a
                # difference that is mere rounding must not shorten its step
                enough = new <= value - 1e-4 * t * slope + rounding * value.abs()
                if bool(enough.all()):
                    break
                t = torch.where(enough, t, t / 2)
            t = torch.where(enough, t, 0.0)  # a step that does not decrease the loss is not taken
            w, before = w - t[:, None, None] * step, value
            value = self.loss(w)
            if bool((value >= before).all()):
                break  # no task falls any further: rounding is all that is left
        return w

    def _solve(self, p: Tensor, gradient: Tensor) -> Tensor:
        """Return ``H^-1 g`` by conjugate gradients (an inexact Newton step).

        The relative residual allowed is ``sqrt|g|``, between 1 % and 10 %: the nearer the minimum,
        the more exact the solution. 1 % still gains two digits per Newton step, and float32 could
        not resolve much less.
        """
        step = torch.zeros_like(gradient)
        residual, direction = gradient, gradient
        square = (residual * residual).sum((1, 2))
        goal = square * square.sqrt().clamp(min=1e-4, max=1e-2)
        for _ in range(_CONJUGATE_GRADIENT_STEPS):
            running = square > goal
            if not bool(running.any()):
                break
            image = self.curvature(p, direction)
            curvature = (direction * image).sum((1, 2))
            # a task that is solved, or has no curvature along the direction, stays where it is
            alpha = torch.where(running & (curvature > 0), square / curvature, 0.0)[:, None, None]
            step = step + alpha * direction
            residual = residual - alpha * image
            new = (residual * residual).sum((1, 2))
            ratio = torch.where(running, new / square.clamp(min=torch.finfo(new.dtype).tiny), 0.0)
            direction = residual + ratio[:, None, None] * direction
            square = torch.where(running, new, square)
        return step
