"""What other tasks say of a task in which nothing can be held out: tables by the number of classes.

Where every class has one example only, a task cannot judge itself. What it may say then was
measured on auxiliary tasks of several sources (data sets).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ByWays", "Levels", "OneShot", "levels_from", "levels_to", "threshold_at"]

# classes beyond the largest of a table for which it still serves, as a factor
_STRETCH = 1.5


@dataclass(frozen=True, slots=True)
class ByWays:
    """A number that depends on how many classes a task has.

    Args:
        ways: numbers of classes, ascending.
        values: one for each.

    Raises:
        ValueError: if they are not of one length, not ascending or not finite.
    """

    ways: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.ways, self.ways[1:], strict=False))
        if not self.ways or len(self.ways) != len(self.values) or not ascending:
            raise ValueError(f"{len(self.ways)} numbers of classes for {len(self.values)} values")
        if self.ways[0] < 1 or not all(math.isfinite(value) for value in self.values):
            raise ValueError("a table of a prior holds a number that is not finite")

    def __call__(self, ways: float) -> float:
        """Return the value, linear in the logarithm of ``ways``; at the ends that of the end."""
        known = np.log(self.ways)
        return float(np.interp(math.log(max(ways, 1.0)), known, self.values))

    def reaches(self, ways: float) -> bool:
        """Return whether the table goes up to so many classes, or nearly."""
        return ways <= _STRETCH * self.ways[-1]

    def to_list(self) -> list[list[float]]:
        """Return pairs of ways and value, JSON-ready."""
        return [[n, value] for n, value in zip(self.ways, self.values, strict=True)]

    @classmethod
    def from_list(cls, pairs: Sequence[Sequence[float]]) -> ByWays:
        """Return the table of :meth:`to_list`.

        Raises:
            TypeError, ValueError: if it is none.
        """
        return cls(tuple(int(n) for n, _ in pairs), tuple(float(value) for _, value in pairs))


Levels = Mapping[float, ByWays]
"""Thresholds by the share of cases that lie below them."""


def levels_to(levels: Levels) -> dict[str, list[list[float]]]:
    """Return thresholds as JSON-ready lists."""
    return {str(level): table.to_list() for level, table in levels.items()}


def levels_from(value: Mapping[str, Any]) -> Levels:
    """Return the thresholds of :func:`levels_to`.

    Raises:
        TypeError, ValueError: if they are none.
    """
    levels = {float(level): ByWays.from_list(table) for level, table in value.items()}
    if len(levels) < 2 or any(not 0 < level < 1 for level in levels):
        raise ValueError("thresholds need two levels between 0 and 1")
    return levels


def threshold_at(levels: Levels, ways: float, level: float) -> float:
    """Return the threshold at any level, interpolated between those of learned levels.

    Linear in the logit of the level, because thresholds grow without bound as levels approach 1.

    Args:
        levels: of one kind of threshold.
        ways: classes of the task.
        level: in (0, 1).
    """
    learned = sorted(levels)
    values = [levels[q](ways) for q in learned]
    for i in range(1, len(values)):
        # a higher share never has a lower threshold
        values[i] = max(values[i], values[i - 1])
    logits = [math.log(q / (1 - q)) for q in learned]
    wanted = math.log(level / (1 - level))
    # the interval that holds the level; the first or last one for levels outside
    i = min(max(sum(known <= wanted for known in logits), 1), len(logits) - 1)
    share = (wanted - logits[i - 1]) / (logits[i] - logits[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


@dataclass(frozen=True, slots=True)
class OneShot:
    """What one head may say of tasks with one example per class.

    Args:
        log_temperature: of the head's logits.
        accuracy: to expect on queries, a fraction.
        low: its 5 % quantile over tasks, a fraction.
        high: its 95 % quantile, a fraction.
        sets: by coverage, the largest ``-log p`` with which a class is in a prediction set.
    """

    log_temperature: ByWays
    accuracy: ByWays
    low: ByWays
    high: ByWays
    sets: Levels

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as JSON-ready lists."""
        numbers = {name: getattr(self, name).to_list() for name in _NUMBERS}
        return numbers | {"sets": levels_to(self.sets)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> OneShot:
        """Return the tables of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if they are none.
        """
        numbers = {name: ByWays.from_list(value[name]) for name in _NUMBERS}
        return cls(**numbers, sets=levels_from(value["sets"]))


_NUMBERS = ("log_temperature", "accuracy", "low", "high")
