"""Multinomial logistic regression, many tasks at once, by Newton's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.heads.kernels import check_width, gaussian_kernel
from quickstudy.learners.heads.weights import weighted

__all__ = ["LogisticHead"]

# of a logit in one step
_LARGEST_CHANGE = 10.0
_NEWTON_STEPS, _SEARCH_STEPS, _SOLVE_STEPS = 50, 25, 100


class LogisticHead(Learner):
    """Logistic regression with an L2 penalty on the weights and a free bias.

    Minimises ``sum_i w_i cross_entropy_i + |W|^2 / (2 c)`` where the ``w_i`` are 1 (scikit-learn's
    ``LogisticRegression(C=c)``), or with ``balanced`` make every class weigh the same
    (``class_weight="balanced"``). Newton's method with conjugate gradients (Nocedal and Wright
    2006, section 7.1) and a backtracking line search, on all tasks together; inputs are first
    rotated into the span of the support, where the solution lies.

    No gradient goes through it into the embeddings.

    Args:
        c: inverse strength of the penalty.
        temperature: logits are divided by it after the fit.
        balanced: classes weigh the same; otherwise examples do.
        kernel_width: regression on the features of a Gaussian kernel of this width instead of the
            inputs, see :func:`~quickstudy.learners.heads.kernels.gaussian_kernel`.
        tolerance: largest entry of the gradient at which a task is done.

    Raises:
        ConfigError: if a number is not positive.
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
        for name, value in (("c", c), ("temperature", temperature), ("tolerance", tolerance)):
            if not value > 0:
                raise ConfigError(f"{name} must be positive; got {value}.")
        self.balanced, self.tolerance = balanced, tolerance
        self.register_buffer("log_c", torch.tensor(math.log(c)))
        self.register_buffer("log_scale", torch.tensor(-math.log(temperature)))

    @torch.no_grad()
    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``weight`` ``[T, C, D]``, ``bias`` ``[T, C]`` and ``present`` bool ``[T, C]``."""
        x, y, weights, present = weighted(support, n_way, balanced=self.balanced)
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
        """Return features ``[T, S, R]`` in which the penalty is spherical, and the map ``[T, R, D
        or S]`` from weights on them to weights on inputs or kernel values."""
        if self.kernel_width is not None:
            # in float64: near duplicates leave small pivots
            kernel = gaussian_kernel(x.double(), x.double(), self.kernel_width)
            both = mask[:, None] & mask[..., None]
            one = torch.eye(x.shape[1]).to(kernel)
            # padding stands apart; the small ridge lets duplicates through
            kernel = torch.where(both, kernel, one) + 1e-6 * one
            root = torch.linalg.cholesky(kernel)  # [T, S, S]
            back = torch.linalg.solve_triangular(root, one.expand_as(root), upper=False)
            return root.to(x.dtype), (back * mask[:, None]).to(x.dtype)
        if x.shape[1] < x.shape[2]:
            basis, triangle = torch.linalg.qr(x.transpose(1, 2))  # [T, D, S], [T, S, S]
            return triangle.transpose(1, 2), basis.transpose(1, 2)
        return x, None


class _Problem:
    """The penalised losses of ``T`` tasks as a function of ``w`` ``[T, C, R+1]``, bias last."""

    def __init__(
        self, x: Tensor, y: Tensor, weights: Tensor, present: Tensor, penalty: Tensor
    ) -> None:
        self.x = torch.cat([x, torch.ones_like(x[..., :1])], 2)  # [T, S, R+1]
        self.y, self.weights, self.absent = y, weights[..., None], ~present[:, None]
        self.penalty = penalty * torch.ones_like(self.x[0, 0])
        self.penalty[-1] = 0
        self.classes = present.sum(1)[:, None, None].clamp(min=1)

    def outputs(self, w: Tensor) -> Tensor:
        """Return the logits ``[T, S, C]`` of the support."""
        return (self.x @ w.transpose(1, 2)).masked_fill(self.absent, -torch.inf)

    def loss(self, w: Tensor) -> Tensor:
        """Return the objective ``[T]``."""
        chosen = self.outputs(w).log_softmax(2).masked_fill(self.y == 0, 0).sum(2)
        return -(chosen * self.weights[..., 0]).sum(1) + 0.5 * (self.penalty * w * w).sum((1, 2))

    def gradient(self, w: Tensor, p: Tensor) -> Tensor:
        """Return the gradient, ``p`` the probabilities at ``w``."""
        return (
            self._apart((self.weights * (p - self.y)).transpose(1, 2) @ self.x) + self.penalty * w
        )

    def curvature(self, p: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian times ``v``."""
        u = self.x @ v.transpose(1, 2)  # [T, S, C]
        u = p * (u - (p * u).sum(2, keepdim=True))
        return self._apart((self.weights * u).transpose(1, 2) @ self.x) + self.penalty * v

    def _apart(self, values: Tensor) -> Tensor:
        """Return ``[T, C, R+1]`` without what all classes share: it sums to zero but for rounding,
        and what is left of it would be divided by a curvature of zero, as no penalty holds the
        biases."""
        mean = values.sum(1, keepdim=True) / self.classes
        return (values - mean).masked_fill(self.absent.transpose(1, 2), 0)

    def minimise(self, tolerance: float) -> Tensor:
        """Return the minimum."""
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
            # a task that is done has rounding for a gradient: others must not wait for its solution
            gradient = gradient.masked_fill(done[:, None, None], 0)
            step = self._solve(p, gradient)
            # where all is saturated there is hardly any curvature, and a step may be of any length
            change = (self.x @ step.transpose(1, 2)).abs().amax((1, 2))  # of the logits [T]
            step = step * (_LARGEST_CHANGE / change.clamp(min=_LARGEST_CHANGE))[:, None, None]
            slope = (gradient * step).sum((1, 2))  # [T], at least 0
            t = torch.ones_like(value)
            for _ in range(_SEARCH_STEPS):
                new = self.loss(w - t[:, None, None] * step)
                # a task at its minimum cannot fall: rounding must not make it search
                enough = new <= value - 1e-4 * t * slope + rounding * value.abs()
                if bool(enough.all()):
                    break
                t = torch.where(enough, t, t / 2)
            t = torch.where(enough, t, 0.0)  # a step that does not lead down is not taken
            w, before = w - t[:, None, None] * step, value
            value = self.loss(w)
            if bool((value >= before).all()):
                break  # as far down as rounding lets it
        return w

    def _solve(self, p: Tensor, gradient: Tensor) -> Tensor:
        """Return ``H^-1 g`` by conjugate gradients, the nearer the minimum the more exactly, but no
        more exactly than float32 can: a residual of 1 % still gains two digits a Newton step."""
        step = torch.zeros_like(gradient)
        rest, along = gradient, gradient
        square = (rest * rest).sum((1, 2))
        goal = square * square.sqrt().clamp(min=1e-4, max=1e-2)
        for _ in range(_SOLVE_STEPS):
            running = square > goal
            if not bool(running.any()):
                break
            h = self.curvature(p, along)
            curved = (along * h).sum((1, 2))
            alpha = torch.where(running & (curved > 0), square / curved, 0.0)[:, None, None]
            step = step + alpha * along
            rest = rest - alpha * h
            new = (rest * rest).sum((1, 2))
            ratio = torch.where(running, new / square.clamp(min=torch.finfo(new.dtype).tiny), 0.0)
            along = rest + ratio[:, None, None] * along
            square = torch.where(running, new, square)
        return step
