"""What a regression learner says of a target: a Gaussian with a mean and a standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from quickstudy.core import ConfigError, TaskError
from quickstudy.core.arguments import checked

__all__ = ["Gaussian"]

_LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)


@checked
@dataclass(frozen=True, slots=True)
class Gaussian:
    """An independent Gaussian for the target of each query.

    Args:
        mean: ``[T, Q]``, in the unit of the targets.
        deviation: standard deviation ``[T, Q]``, above zero, in the unit of the targets.

    Raises:
        TaskError: if the shapes differ.

    Example::

        import torch
        from quickstudy.learners import Gaussian

        said = Gaussian(torch.zeros(1, 3), torch.ones(1, 3))
        said.log_density(torch.zeros(1, 3))  # [1, 3], each -0.919 nats
        low, high = said.interval(0.9)  # -1.645 and 1.645
    """

    mean: Tensor
    deviation: Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.deviation.shape:
            raise TaskError(
                "a mean and a deviation for each query are needed; got means "
                f"{list(self.mean.shape)} and deviations {list(self.deviation.shape)}. Return both "
                "as [T, Q]."
            )

    def log_density(self, y: Tensor) -> Tensor:
        """Return the logarithm of the density at targets ``[T, Q]``, in nats."""
        # log N(y; m, s) = -((y - m) / s)^2 / 2 - log s - log(2 pi) / 2
        scaled = (y - self.mean) / self.deviation
        return -0.5 * scaled.square() - self.deviation.log() - _LOG_ROOT_2_PI

    def interval(self, share: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the ends of the central intervals that are to hold a share of the targets.

        Raises:
            ConfigError: if ``share`` does not lie between 0 and 1.
        """
        if not 0 < share < 1:
            raise ConfigError(f"share must lie between 0 and 1; got {share}.")
        half = float(stats.norm.ppf(0.5 + share / 2)) * self.deviation
        return self.mean - half, self.mean + half
