"""Rules: a class is what some conditions on a few columns say together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quickstudy.tasks.synthetic.draws import Draws, widths
from quickstudy.tasks.synthetic.trees import plain_columns, used_columns

__all__ = ["RuleTarget"]

_CONDITIONS, _THRESHOLD, _SIDE, _NOISE, _NOISE_SIZE, _USED = range(300, 306)
_RULES, _MOST_CONDITIONS = 2, 3  # of each class


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """Tables whose classes are rules such as "column 3 above 0.2 and column 5 below 1".

    Each class has two rules of one to three conditions; its score counts the rules that hold.

    Args:
        label_noise: the largest standard deviation of the noise of the scores.

    Example::

        from quickstudy.tasks.synthetic import Draws, RuleTarget
        x, scores = RuleTarget().draw(Draws(torch.tensor([1, 2])), rows=50, columns=6, classes=3)
        x.shape, scores.shape  # [2, 50, 6], [2, 50, 3]
    """

    label_noise: float = 0.3

    def draw(
        self, draws: Draws, *, rows: int, columns: int | Tensor, classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return columns ``[T, N, F]`` and scores ``[T, N, C]``, see :class:`RandomGraph`."""
        columns = widths(draws, columns)
        x = plain_columns(draws, rows, columns)
        count = draws.whole(_CONDITIONS, classes, _RULES, below=_MOST_CONDITIONS)  # and one more
        used = draws.whole(_USED, below=columns.clamp(max=8)) + 1
        scores = torch.zeros(len(x), rows, classes, device=x.device)
        for rule in range(_RULES):
            holds = torch.ones_like(scores, dtype=torch.bool)
            for condition in range(_MOST_CONDITIONS):
                name = 10 * (rule * _MOST_CONDITIONS + condition)
                place = used_columns(draws, used, columns, classes * _RULES * _MOST_CONDITIONS)
                at = place[:, (rule * _MOST_CONDITIONS + condition) :: _RULES * _MOST_CONDITIONS]
                cells = x.gather(2, at[:, None].expand(-1, rows, -1))  # [T, N, C]
                threshold = 0.6 * draws.normal(_THRESHOLD + 10 + name, classes)[:, None]
                above = draws.chance(_SIDE + 10 + name, classes, of=0.5)[:, None]
                met = (cells > threshold) == above
                holds &= met | (condition > count[:, None, :, rule])
            scores = scores + holds
        size = draws.uniform(_NOISE_SIZE, low=0.02).square() * self.label_noise
        return x, scores + size[:, None, None] * draws.normal(_NOISE, rows, classes)
