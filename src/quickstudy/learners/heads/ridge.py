"""Ridge regression on one-hot labels (Bertinetto, Henriques, Torr and Vedaldi 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.core import Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_positive
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.heads.kernels import check_width, gaussian_kernel_less_one
from quickstudy.learners.heads.weights import weighted

__all__ = ["RidgeHead"]

_INVERSE_STEPS = 20  # of Newton's iteration, in exported graphs


@checked
class RidgeHead(Learner):
    """A linear classifier by ridge regression on one-hot labels, in closed form.

    Bertinetto et al. (2019), "Meta-learning with differentiable closed-form solvers", section 3
    (R2-D2): ``W = (X'X + a I)^-1 X'Y``, by Woodbury's identity (equation 5) where there are fewer
    examples than features; logits are ``scale (x W + b)``.

    *Difference from the paper*: the bias is not penalised (inputs and targets are centred), every
    class weighs as much as any other however many examples it has (``balanced``), the penalty is
    relative to the mean squared length of the centred inputs, so that it does not depend on their
    unit, and the constant that is added to all logits is left out: it changes no probability.

    Args:
        penalty: ``a``, in units of the mean squared length of the centred inputs.
        scale: logits are multiplied by it.
        balanced: every class has the same total weight; otherwise every example has weight 1.
        kernel_width: width of a Gaussian kernel whose features replace the inputs; ``None`` = the
            inputs themselves, see :func:`~quickstudy.learners.heads.kernels.gaussian_kernel`.
        learn: whether meta-training adjusts penalty and scale.

    Raises:
        ConfigError: if the penalty, the scale or the width is not positive.

    Example::

        head = RidgeHead(penalty=1.0)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    log_penalty: Tensor
    log_scale: Tensor

    def __init__(
        self,
        *,
        penalty: float = 1.0,
        scale: float = 10.0,
        balanced: bool = True,
        kernel_width: float | None = None,
        learn: bool = False,
    ) -> None:
        super().__init__()
        check_width(kernel_width)
        self.kernel_width = kernel_width
        check_positive(penalty=penalty, scale=scale)
        self.balanced = balanced
        for name, value in (("log_penalty", penalty), ("log_scale", scale)):
            start = torch.tensor(math.log(value))
            if learn:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``centre`` ``[T, 1, D]``, which is taken off the inputs, and ``weight`` ``[T, C,
        D]``, or with a kernel the examples ``support`` and their ``weight`` ``[T, C, S]``; ``bias``
        ``[T, C]`` and ``present`` bool ``[T, C]``."""
        x, y, weights, present = weighted(support, n_way, balanced=self.balanced)
        # neither form of the solution sees where zero lies, but products of inputs that lie far
        # from it would lose their digits
        centre = _centre(x, weights)
        x = (x - centre).masked_fill(~support.mask[..., None], 0)
        same = {"centre": centre, "present": present}
        # centring inputs and targets gives a bias without penalty; rows multiplied by the root of
        # their weight turn weighted least squares into plain least squares
        root, centre_y = weights.sqrt()[..., None], _centre(y, weights)
        b = root * (y - centre_y)  # [T, S, C]
        if self.kernel_width is None and x.shape[1] >= x.shape[2]:
            # W = (A'A + a I)^-1 A'B, where there are at least as many examples as features
            a = root * x  # [T, S, D]
            gram = a.transpose(1, 2) @ a
            unit = a.square().sum((1, 2))
            gram = gram + self._penalty(unit, weights) * torch.eye(gram.shape[1]).to(gram)
            weight = torch.linalg.solve(gram, a.transpose(1, 2) @ b).transpose(1, 2)
            return same | {"weight": weight, "bias": centre_y[:, 0]}
        # W = A' (A A' + a I)^-1 B, by Woodbury's identity; a kernel has inner products only
        plain = self._products(x, x)  # [T, S, S]
        solved = self._solve(plain, weights, b)
        dual = root * solved  # [T, S, C]; sums to zero over the examples
        bias = (centre_y - _centre(plain, weights) @ dual)[:, 0]  # [T, C]
        if self.kernel_width is None:
            weight = dual.transpose(1, 2) @ x  # [T, C, S] @ [T, S, D]
            return same | {"weight": weight, "bias": bias}
        return same | {"support": x, "weight": dual.transpose(1, 2), "bias": bias}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return ``scale (x W + b)`` ``[T, Q, C]``."""
        x = x - state["centre"]
        features = x if self.kernel_width is None else self._products(x, state["support"])
        logits = torch.baddbmm(state["bias"][:, None], features, state["weight"].transpose(1, 2))
        logits = logits * self.log_scale.exp().to(logits.dtype)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """Return inner products, or kernel values: ``[T, N, D]`` and ``[T, S, D] -> [T, N, S]``.

        Kernel values are less 1: the weights of the examples sum to zero, so it makes no odds.
        """
        if self.kernel_width is None:
            return a @ b.transpose(1, 2)
        return gaussian_kernel_less_one(a, b, self.kernel_width)

    def _solve(self, plain: Tensor, weights: Tensor, b: Tensor) -> Tensor:
        """Return ``(K + a I)^-1 B``; ``K`` holds the products of the centred, weighted inputs."""
        root = weights.sqrt()[..., None]
        mean = _centre(plain, weights)  # [T, 1, S]
        # <x_i - m, x_j - m> from <x_i, x_j> alone: minus both means, plus the mean of the means
        centred = plain - mean - mean.transpose(1, 2) + _centre(mean.transpose(1, 2), weights)
        gram = root * centred * root.transpose(1, 2)
        penalty = self._penalty(gram.diagonal(dim1=1, dim2=2).sum(1), weights)
        return _solve_definite(gram + penalty * torch.eye(gram.shape[1]).to(gram), b)

    def _penalty(self, squares: Tensor, weights: Tensor) -> Tensor:
        """Return the penalty ``[T, 1, 1]``, given the sum of squared lengths ``[T]``."""
        count = weights.gt(0).sum(1).clamp(min=1)
        # identical examples have no length about their centre: any penalty above zero will do
        unit = (squares / count).clamp(min=torch.finfo(squares.dtype).eps)
        return (self.log_penalty.exp().to(squares.dtype) * unit)[:, None, None]


def _solve_definite(matrix: Tensor, b: Tensor) -> Tensor:
    """Return ``matrix^-1 b`` ``[T, S, C]`` of a positive definite matrix ``[T, S, S]``."""
    if not torch.compiler.is_exporting():
        solved: Tensor = torch.linalg.solve(matrix, b)
        return solved
    # graphs for other runtimes have no inverse: Newton's iteration (Schulz 1933) needs products
    # only. About log2 of the condition number (some 2^12 at most) steps make it converge, and each
    # one after that doubles the number of right digits
    one = torch.eye(matrix.shape[1]).to(matrix)
    found: Tensor = one / matrix.abs().sum(2).amax(1)[:, None, None]
    for _ in range(_INVERSE_STEPS):
        found = found @ (2 * one - matrix @ found)
    return found @ b


def _centre(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean over examples, ``[T, S, D] -> [T, 1, D]``."""
    total = weights.sum(1).clamp(min=torch.finfo(values.dtype).tiny)
    return ((weights[..., None] * values).sum(1) / total[:, None])[:, None]
