"""The space in which a task's examples are compared: learned from classes of other tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, TaskError
from quickstudy.core.arguments import checked

__all__ = ["Metric", "MetricSettings", "Spread", "mean_and_within", "unit_rows"]

# smallest variance of a direction, as a share of the mean variance: whitening must not blow up
# directions in which training examples hardly differ
_VARIANCE_FLOOR = 1e-6


@checked
@dataclass(frozen=True, slots=True)
class MetricSettings:
    """How a metric is made, chosen on held-out classes.

    Args:
        power: embeddings become ``sign(z) |z|^power``: 0.5 tames the long tails of features after a
            ReLU (Hu, Gripon and Pateux 2021, "Leveraging the feature distribution in
            transfer-based few-shot learning", equation 1); 1 leaves them.
        shrinkage: how far the within-class covariance is drawn towards a multiple of the identity,
            in [0, 1]; 1 = no whitening.
        rank: number of whitened directions: those in which examples of one class differ most. All
            others share one variance, so that a file has to hold ``rank`` vectors only.
        unit: whether embeddings are scaled to length 1. Columns of a table are not: a row of one
            column would keep its sign alone.

    Raises:
        ConfigError: if a number is out of range.
    """

    power: float = 1.0
    shrinkage: float = 1.0
    rank: int = 128
    unit: bool = True

    @property
    def plain(self) -> bool:
        """Whether directions and their sizes stay as they are."""
        return self.power == 1 and self.shrinkage == 1

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise ConfigError(f"power must lie in (0, 1]; got {self.power}.")
        if not 0 <= self.shrinkage <= 1:
            raise ConfigError(f"shrinkage must lie in [0, 1]; got {self.shrinkage}.")
        if self.rank < 1:
            raise ConfigError(f"rank must be at least 1; got {self.rank}.")


@dataclass(frozen=True, slots=True)
class Spread:
    """How examples of one class differ, in general: what metrics of any shrinkage are made of.

    Args:
        mean: mean of the class means ``[D]``.
        values: eigenvalues of the covariance within classes, ascending ``[D]``.
        vectors: its eigenvectors, as columns ``[D, D]``.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, z: Tensor, y: Tensor, settings: MetricSettings) -> Spread:
        """Return the spread of these examples, whatever the shrinkage and the rank.

        Args:
            z: embeddings ``[N, D]``.
            y: class numbers ``[N]``.
            settings: power and length.

        Raises:
            TaskError: if there are fewer than two classes.
        """
        mean, within = mean_and_within(_placed(z, settings).double(), y)
        return cls(mean, *torch.linalg.eigh(within))

    def metric(self, settings: MetricSettings) -> Metric:
        """Return the metric with these settings."""
        if settings.shrinkage == 1:
            return Metric(settings, self.mean.float())
        average = self.values.mean().clamp(min=torch.finfo(self.values.dtype).tiny)
        kept = (1 - settings.shrinkage) * self.values.clamp(min=0)
        shrunk = kept + settings.shrinkage * average
        shrunk = shrunk.clamp(min=_VARIANCE_FLOOR * float(average))
        rank = min(settings.rank, len(shrunk))
        rest = shrunk[:-rank].mean() if rank < len(shrunk) else average
        # whitening divides a direction by its deviation; relative to the variance of the rest, the
        # other directions keep their length and need not be stored
        factors = (rest / shrunk[-rank:]).sqrt()
        directions = self.vectors[:, -rank:].float().contiguous()
        return Metric(settings, self.mean.float(), directions, factors.float())


@dataclass(frozen=True, slots=True)
class Metric:
    """A map of embeddings to the space in which cosines compare examples.

    ``x = n(z) - mean``, where ``n`` is the signed power, as a rule scaled to length 1; then
    ``x + V (diag(f) - I) V' x``, which multiplies the coordinates along the directions ``V`` by
    ``f``.

    Args:
        settings: how the metric was made.
        mean: mean of the class means of ``n(z)`` ``[D]``.
        directions: ``V``, orthonormal columns ``[D, R]``; ``None`` = no direction is changed.
        factors: ``f``, one for each direction ``[R]``.
    """

    settings: MetricSettings
    mean: Tensor
    directions: Tensor | None = None
    factors: Tensor | None = None

    @classmethod
    def plain(cls, dim: int, *, unit: bool = True) -> Metric:
        """Return the metric of an encoder of which nothing is known: plain cosines, or distances
        of embeddings as they are."""
        return cls(MetricSettings(unit=unit), torch.zeros(dim))

    @classmethod
    def fit(cls, z: Tensor, y: Tensor, settings: MetricSettings) -> Metric:
        """Return the metric of these examples.

        Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006, "WCCN"), shrunk
        (Ledoit and Wolf 2004), with the smaller eigenvalues set to their mean (as in probabilistic
        principal components, Tipping and Bishop 1999, section 3.2).

        Args:
            z: embeddings ``[N, D]``.
            y: class numbers ``[N]``.
            settings: power, shrinkage and rank.

        Raises:
            TaskError: if there are fewer than two classes.
        """
        return Spread.of(z, y, settings).metric(settings)

    @property
    def dim(self) -> int:
        """The number of features ``D``."""
        return len(self.mean)

    def __call__(self, z: Tensor) -> Tensor:
        """Return embeddings in this space ``[..., D] -> [..., D]``.

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
        """Return the same without checks, which a traced graph cannot hold."""
        x = _placed(z, self.settings) - self.mean.to(z)
        if self.directions is None or self.factors is None:
            return x
        along = self.directions.to(z)
        return x + (x @ along * (self.factors.to(z) - 1)) @ along.T


def _placed(z: Tensor, settings: MetricSettings) -> Tensor:
    """Return ``sign(z) |z|^power``, scaled to length 1 if the settings say so."""
    if settings.power != 1:
        z = z.sign() * z.abs().pow(settings.power)
    return unit_rows(z) if settings.unit else z


def unit_rows(z: Tensor) -> Tensor:
    """Return vectors scaled to length 1 ``[..., D]``, however large or small they are; zeros stay
    zeros."""
    largest = z.abs().amax(-1, keepdim=True)
    # squares of such numbers are no float32 numbers; others stay what they are to the last bit
    beyond = (largest > 1e15) | ((largest < 1e-15) & (largest > 0))
    return F.normalize(z / torch.where(beyond, largest, 1.0), dim=-1)


def mean_and_within(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the class means ``[D]`` and the covariance within classes ``[D, D]``.

    Every class weighs the same in both, however many examples it has.

    Args:
        x: examples ``[N, D]``.
        y: class numbers ``[N]``.

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
    # within = 1/C sum_c 1/N_c sum_i (x_i - m_c)(x_i - m_c)': the weights enter as square roots
    deviations = (x - means[index]) / (counts[index, None] * len(classes)).sqrt()
    return means.mean(0), deviations.T @ deviations
