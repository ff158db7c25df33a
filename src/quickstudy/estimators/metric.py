"""The space in which a task's examples are compared: learned from classes of other tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError, TaskError

__all__ = ["Metric", "MetricSettings", "within_and_between"]

# directions that no training example uses are not blown up
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
        dim: directions kept, those in which classes differ most; ``None`` = all.

    Raises:
        ConfigError: if a number is out of range.
    """

    power: float = 1.0
    shrinkage: float = 1.0
    dim: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise ConfigError(f"power must lie in (0, 1]; got {self.power}.")
        if not 0 <= self.shrinkage <= 1:
            raise ConfigError(f"shrinkage must lie in [0, 1]; got {self.shrinkage}.")
        if self.dim is not None and self.dim < 1:
            raise ConfigError(f"dim must be at least 1, or None for all; got {self.dim}.")


@dataclass(frozen=True, slots=True)
class Metric:
    """Power, length one, minus the mean, times a matrix.

    Args:
        settings: how it was made.
        mean: of the class means ``[D]``, after power and scaling.
        matrix: ``[D, D']``, or ``None`` for the identity.
    """

    settings: MetricSettings
    mean: Tensor
    matrix: Tensor | None = None

    @classmethod
    def plain(cls, dim: int) -> Metric:
        """Return the metric of an encoder nothing is known of: cosines."""
        return cls(MetricSettings(), torch.zeros(dim))

    @classmethod
    def fit(cls, z: Tensor, y: Tensor, settings: MetricSettings) -> Metric:
        """Return the metric of these examples.

        Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006, "WCCN"), shrunk
        (Ledoit and Wolf 2004); with ``dim`` the directions are those of linear discriminant
        analysis.

        Args:
            z: embeddings ``[N, D]``.
            y: class numbers ``[N]``.
            settings: how.

        Raises:
            TaskError: if there are fewer than two classes.
        """
        x = _on_sphere(z, settings.power).double()
        mean, within, between = within_and_between(x, y)
        if settings.shrinkage == 1 and settings.dim is None:
            return cls(settings, mean.float())
        values, vectors = torch.linalg.eigh(within)
        unit = values.mean().clamp(min=_FLOOR)
        shrunk = (1 - settings.shrinkage) * values.clamp(min=0) + settings.shrinkage * unit
        matrix = vectors * shrunk.clamp(min=_FLOOR * float(unit)).rsqrt()  # [D, D]
        # in the unit of the inputs, so that settings of heads keep their meaning
        matrix = matrix * unit.sqrt()
        if settings.dim is not None:
            _, directions = torch.linalg.eigh(matrix.T @ between @ matrix)
            matrix = matrix @ directions.flip(1)[:, : settings.dim]
        return cls(settings, mean.float(), matrix.float().contiguous())

    @property
    def dim(self) -> int:
        """The number of features ``D'`` that it returns."""
        return len(self.mean) if self.matrix is None else int(self.matrix.shape[1])

    def __call__(self, z: Tensor) -> Tensor:
        """Return ``[..., D] -> [..., D']``.

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
        return x if self.matrix is None else x @ self.matrix.to(z)


def _on_sphere(z: Tensor, power: float) -> Tensor:
    if power != 1:
        z = z.sign() * z.abs().pow(power)
    return F.normalize(z, dim=-1)


def within_and_between(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean of the class means ``[D]``, and the covariances within and between classes
    ``[D, D]``, every class weighing the same.

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
    mean = means.mean(0)
    apart = (means - mean) / (len(classes) - 1) ** 0.5
    return mean, rest.T @ rest, apart.T @ apart
