"""Linear discriminant analysis with a shrunk covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import ConfigError, Examples, TaskState
from quickstudy.core.arguments import checked
from quickstudy.learners.base import Family, Learner
from quickstudy.learners.classes import class_means, class_weights, without_padding

__all__ = ["DiscriminantHead"]


@checked
class DiscriminantHead(Learner):
    """Linear discriminant analysis: normal classes that share one covariance.

    ``log p(c | x) = m_c' V^-1 x - m_c' V^-1 m_c / 2 + log p(c) + constant``, where ``V`` is the
    covariance within classes, drawn towards a multiple of the identity (Friedman 1989, "Regularized
    discriminant analysis", equation 18; scikit-learn's ``LinearDiscriminantAnalysis`` with
    ``solver="lsqr"``).

    *Difference from scikit-learn*: the covariance is divided by the number of examples minus that
    of classes, and not by that of examples, which makes it half as large with two examples per
    class. Where no class has two examples, the covariance of all examples stands in.

    Args:
        shrinkage: how far the covariance is drawn towards a multiple of the identity, above 0, at
            most 1.
        balanced: all classes are equally likely; otherwise as likely as they are frequent.

    Raises:
        ConfigError: if the shrinkage is out of range.

    Example::

        head = DiscriminantHead(shrinkage=0.3)
        support = Examples.full(torch.rand(1, 10, 64), torch.arange(5).repeat(1, 2))
        state = head.adapt(support, n_way=5)
        logits = head.predict(state, torch.rand(1, 75, 64))  # [1, 75, 5]
    """

    family: Family = "baseline"

    def __init__(self, *, shrinkage: float = 0.3, balanced: bool = False) -> None:
        super().__init__()
        if not 0 < shrinkage <= 1:
            raise ConfigError(f"shrinkage must be above 0 and at most 1; got {shrinkage}.")
        self.shrinkage, self.balanced = shrinkage, balanced

    def adapt(self, support: Examples, *, n_way: int) -> TaskState:
        """Return ``weight`` ``[T, C, D]``, ``bias`` ``[T, C]``, ``centre`` ``[T, 1, D]``, which is
        taken off the inputs, and ``present`` bool ``[T, C]``."""
        support.check_labels(n_way)
        support = without_padding(support)
        members, present = class_weights(support.y, support.mask, n_way)
        kept = support.mask[..., None].double()
        counts = members.sum(1).double()  # [T, C]
        total = counts.sum(1).clamp(min=1)[:, None, None]
        # float64: the covariance of columns that are nearly copies has tiny eigenvalues
        centre = (support.x.double() * kept).sum(1, keepdim=True) / total  # [T, 1, D]
        x = (support.x.double() - centre) * kept
        means = class_means(x, support.y, support.mask, n_way)  # [T, C, D]
        deviations = (x - means.gather(1, support.y[..., None].expand_as(x))) * kept
        left = (total - present.sum(1)[:, None, None]).clamp(min=1)
        covariance = deviations.transpose(1, 2) @ deviations / left  # [T, D, D]
        variance = _mean_variance(covariance)
        # no class has two examples that differ
        alone = variance <= torch.finfo(x.dtype).eps * _mean_variance(x.transpose(1, 2) @ x / total)
        covariance = torch.where(alone, x.transpose(1, 2) @ x / total, covariance)
        variance = _mean_variance(covariance)
        variance = torch.where(variance > 0, variance, 1.0)  # all examples are the same
        identity = torch.eye(x.shape[2]).to(x)
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * variance * identity
        weight = torch.linalg.solve(shrunk, means.transpose(1, 2)).transpose(1, 2)
        bias = -0.5 * (weight * means).sum(2)
        if not self.balanced:
            bias = bias + counts.clamp(min=1).log() - total[..., 0].log()
        same = {"centre": centre, "weight": weight, "bias": bias}
        return {n: v.to(support.x.dtype) for n, v in same.items()} | {"present": present}

    def predict(self, state: TaskState, x: Tensor) -> Tensor:
        """Return the logits ``[T, Q, C]``."""
        weight = state["weight"].transpose(1, 2)
        logits = torch.baddbmm(state["bias"][:, None], x - state["centre"], weight)
        return logits.masked_fill(~state["present"][:, None], -torch.inf)


def _mean_variance(covariance: Tensor) -> Tensor:
    """Return the mean of the diagonal ``[T, 1, 1]``."""
    return covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
