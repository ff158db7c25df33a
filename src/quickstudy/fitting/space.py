"""The space in which a task's examples are compared: learned from classes of other tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, TaskError

__all__ = ["Metric", "MetricSettings", "mean_and_within"]

# of the mean variance: where training examples hardly differ nothing is blown up
_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class MetricSettings:
    """How a metric is made, chosen on held-out classes.

    Args:
        power: embeddings become ``sign(z) |z|^power``: 0.5 tames the long tails of features after a
            ReLU (Hu, Gripon and Pateux 2021, "Leveraging the feature distribution in
            transfer-based few-shot learning", equation 1); 1 leaves them.
        shrinkage: of the within-class covariance towards a multiple of the identity, in [0, 1];
            1 = no whitening.
        rank: directions that are whitened, those in which examples of a class differ most; all
            others count as one level of noise, so that a file holds ``rank`` vectors.

    Raises:
        ConfigError: if a number is out of range.
    """

    power: float = 1.0
    shrinkage: float = 1.0
    rank: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise ConfigError(f"power must lie in (0, 1]; got {self.power}.")
        if not 0 <= self.shrinkage <= 1:
            raise ConfigError(f"shrinkage must lie in [0, 1]; got {self.shrinkage}.")
        if self.rank < 1:
            raise ConfigError(f"rank must be at least 1; got {self.rank}.")


@dataclass(frozen=True, slots=True)
class Metric:
    """Power, length one, minus the mean; then some directions are shortened or lengthened.

    Args:
        settings: how it was made.
        mean: of the class means ``[D]``, after power and scaling.
        directions: orthonormal ``[D, R]``, or ``None``: all stay as they are.
        factors: of the lengths along them ``[R]``.
    """

    settings: MetricSettings
    mean: Tensor
    directions: Tensor | None = None
    factors: Tensor | None = None

    @classmethod
    def plain(cls, dim: int) -> Metric:
        """Return the metric of an encoder nothing is known of: cosines."""
        return cls(MetricSettings(), torch.zeros(dim))

    @classmethod
    def fit(cls, z: Tensor, y: Tensor, settings: MetricSettings) -> Metric:
        """Return the metric of these examples.

        Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006, "WCCN"), shrunk
        (Ledoit and Wolf 2004), the smaller eigenvalues taken for equal (as in probabilistic
        principal components, Tipping and Bishop 1999, section 3.2).

        Args:
            z: embeddings ``[N, D]``.
            y: class numbers ``[N]``.
            settings: how.

        Raises:
            TaskError: if there are fewer than two classes.
        """
        x = _on_sphere(z, settings.power).double()
        mean, within = mean_and_within(x, y)
        if settings.shrinkage == 1:
            return cls(settings, mean.float())
        values, vectors = torch.linalg.eigh(within)  # ascending
        unit = values.mean().clamp(min=torch.finfo(values.dtype).tiny)
        shrunk = (1 - settings.shrinkage) * values.clamp(min=0) + settings.shrinkage * unit
        shrunk = shrunk.clamp(min=_FLOOR * float(unit))
        rank = min(settings.rank, len(values))
        rest = shrunk[:-rank].mean() if rank < len(values) else unit
        factors = (rest / shrunk[-rank:]).sqrt()
        directions = vectors[:, -rank:].float().contiguous()
        return cls(settings, mean.float(), directions, factors.float())

    @property
    def dim(self) -> int:
        """The number of features ``D``."""
        return len(self.mean)

    def __call__(self, z: Tensor) -> Tensor:
        """Return ``[..., D] -> [..., D]``.

        Raises:
            TaskError: if the width is another, or a number is not finite.
        """
        if z.shape[-1] != len(self.mean):
            raise TaskError(
                f"embeddings have {z.shape[-1]} features; this prior was learned on "
                f"{len(self.mean)}. Use the encoder it was learned for, or TaskPrior.plain."
            )
        if not bool(z.isfinite().all()):
            raise TaskError(
                "embeddings contain NaN or infinity. Look for broken inputs, or for an encoder "
                "that overflows."
            )
        return self.map(z)

    def map(self, z: Tensor) -> Tensor:
        """Return the same, unchecked: for graphs that are traced."""
        x = _on_sphere(z, self.settings.power) - self.mean.to(z)
        if self.directions is None or self.factors is None:
            return x
        along = self.directions.to(z)
        return x + (x @ along * (self.factors.to(z) - 1)) @ along.T


def _on_sphere(z: Tensor, power: float) -> Tensor:
    if power != 1:
        z = z.sign() * z.abs().pow(power)
    return F.normalize(z, dim=-1)


def mean_and_within(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the class means ``[D]``, and the covariance within classes ``[D, D]``,
    every class weighing the same.

    Raises:
        TaskError: if there are fewer than two classes.
    """
    classes, index = torch.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise TaskError(
            f"a metric is learned from at least two classes; got {len(classes)}. Give more "
            "auxiliary classes, or use TaskPrior.plain."
        )
    counts = torch.bincount(index).to(x.dtype)
    sums = torch.zeros(len(classes), x.shape[1], dtype=x.dtype).index_add_(0, index, x)
    means = sums / counts[:, None]  # [C, D]
    rest = (x - means[index]) / (counts[index, None] * len(classes)).sqrt()
    return means.mean(0), rest.T @ rest
