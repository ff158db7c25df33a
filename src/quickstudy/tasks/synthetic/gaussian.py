"""Linear-Gaussian tables: each class is a cloud; linear methods are right about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws, widths

__all__ = ["LinearGaussian"]

_MEAN, _FACTOR, _LOADING, _SPREAD, _DISTANCE, _USEFUL, _OWN, _CLASS, _SHARED = range(400, 409)
_FACTORS = 4


@dataclass(frozen=True, slots=True)
class LinearGaussian:
    """Tables of Gaussian classes with common factors, the model of linear discriminant analysis.

    ``x = mean of the class + loadings x factors + noise``. The means differ in a random share of
    the columns. In every fourth table each class has a spread of its own (quadratic bounds).

    Example::

        from quickstudy.tasks.synthetic import Draws, LinearGaussian
        made = LinearGaussian()
        x, scores = made.draw(Draws(torch.tensor([1, 2])), rows=50, columns=6, classes=3)
        x.shape, scores.shape  # [2, 50, 6], [2, 50, 3]
    """

    def draw(
        self,
        draws: Draws,
        *,
        rows: int,
        columns: int | Tensor,
        classes: int,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return columns ``[T, N, F]`` and scores ``[T, N, C]``, see :class:`RandomGraph`.

        Args:
            draws: of ``T`` tables.
            rows: ``N``.
            columns: of each table ``[T]``, or one number.
            classes: ``C``.
            labels: the class of each row ``[T, N]``; ``None`` = each class as likely.
        """
        columns = int(widths(draws, columns).max())
        y = draws.whole(_CLASS, rows, below=classes) if labels is None else labels
        far = draws.uniform(_DISTANCE, low=0.2, high=1.0).square() * 2.5  # [T]
        share = draws.uniform(_USEFUL, low=0.1)[:, None]
        useful = draws.uniform(_USEFUL + 20, columns) < share
        means = draws.normal(_MEAN, classes, columns) * (far[:, None] * useful)[:, None]
        x = means.gather(1, y[..., None].expand(-1, -1, columns))
        spread = torch.exp(0.5 * draws.normal(_SPREAD, classes, columns))
        own = draws.chance(_OWN, of=0.25)[:, None, None]
        spread = torch.where(own, spread, torch.ones_like(spread))
        noise = draws.normal(_MEAN + 20, rows, columns)
        noise = noise * spread.gather(1, y[..., None].expand(-1, -1, columns))
        together = draws.uniform(_SHARED, high=1.2)[:, None, None]
        factor = draws.normal(_FACTOR + 20, rows, _FACTORS)
        loading = draws.normal(_LOADING + 20, _FACTORS, columns)
        for k in range(_FACTORS):
            noise = noise + together * factor[:, :, k, None] * loading[:, k, None]
        return x + noise, torch.nn.functional.one_hot(y, classes).to(x.dtype)
