"""The accuracy to expect of each class, from the examples held out of it.

One number for all classes hides the rare ones: where one class has 1,000 examples and another has
5, the accuracy of the first is the accuracy of the task, whatever happens to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy.core import TaskError
from quickstudy.estimators.labels import Label
from quickstudy.estimators.support import Bools, Support
from quickstudy.fitting.task import FittedTask

__all__ = ["ClassEstimate", "balanced_accuracy", "class_estimates", "rare_classes_text"]

_RARE = 0.1  # of the examples of the largest class
_MOST_CLASSES_SHOWN = 3
_Z_90 = 1.645  # normal quantile of a two-sided 90 % interval


@dataclass(frozen=True, slots=True)
class ClassEstimate:
    """What the held-out examples of one class tell about it.

    Args:
        label: the class.
        n: its examples.
        held_out: how many of them were held out and judged; of a large task it is a part, and of a
            class with one example none.
        right: how many of these were answered right.
        covered: of how many of these the prediction set at 90 % held the class.
        low: lower end of the 90 % interval of the accuracy, a fraction (Wilson 1927).
        high: upper end.

    Example::

        X, y = [[0.0], [0.2], [0.1], [9.0], [9.1], [9.2]], ["low"] * 3 + ["high"] * 3
        for one in FewShotClassifier("table").fit(X, y).class_estimates():
            print(one.label, one.n, one.accuracy, one.coverage, one.low, one.high)
    """

    label: Label
    n: int
    held_out: int
    right: int
    covered: int
    low: float
    high: float

    @property
    def accuracy(self) -> float | None:
        """The share answered right; ``None`` if no example was held out."""
        return self.right / self.held_out if self.held_out else None

    @property
    def coverage(self) -> float | None:
        """The share whose prediction set held the class; ``None`` if no example was held out."""
        return self.covered / self.held_out if self.held_out else None


def class_estimates(support: Support, task: FittedTask) -> list[ClassEstimate]:
    """Return the estimate of each class ``[C]``, in the order of the columns.

    Args:
        support: the labelled examples.
        task: what was learned of them.
    """
    evidence, y = task.evidence, support.y
    judged = evidence.judged[0].numpy() & (support.n_way > 1)
    logits = evidence.held_out[0]
    right = judged & (logits.argmax(1).numpy() == y)
    inside = np.zeros_like(judged)
    if judged.any():
        sets = task.sets_of(logits / task.temperature).numpy()
        inside = judged & sets[np.arange(len(y)), y]
    counts, n_way = support.counts.tolist(), support.n_way

    def per_class(rows: Bools) -> list[int]:
        found: list[int] = np.bincount(y[rows], minlength=n_way).tolist()
        return found

    columns = zip(
        support.classes, counts, per_class(judged), per_class(right), per_class(inside), strict=True
    )
    return [
        ClassEstimate(label, n, m, k, covered, *_wilson(k, m))
        for label, n, m, k, covered in columns
    ]


def _wilson(k: int, n: int) -> tuple[float, float]:
    """Return the 90 % interval of a share; the whole range if nothing was seen."""
    if not n:
        return 0.0, 1.0
    share, z = k / n, _Z_90
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def balanced_accuracy(estimates: Sequence[ClassEstimate]) -> float | None:
    """Return the mean accuracy over classes; ``None`` unless each has a held-out example.

    Raises:
        TaskError: if there are no classes.
    """
    if not estimates:
        raise TaskError("there are no classes to average over. Give the estimates of a task.")
    found = [one.accuracy for one in estimates]
    known = [share for share in found if share is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def rare_classes_text(estimates: Sequence[ClassEstimate]) -> list[str]:
    """Return lines about classes that have few of the examples; none if no class does.

    A class counts as rare if it has at most a tenth of the examples of the largest one.

    Args:
        estimates: of all classes.
    """
    most, total = max(one.n for one in estimates), sum(one.n for one in estimates)
    rare = sorted((one for one in estimates if one.n <= _RARE * most), key=lambda one: one.n)
    if not rare:
        return []
    lines = []
    for one in rare[:_MOST_CLASSES_SHOWN]:
        seen = "none could be held out, so nothing is known of its accuracy"
        if one.held_out:
            seen = (
                f"of its {one.held_out:,} held out {one.right:,} "
                f"{'was' if one.right == 1 else 'were'} answered right, and {one.covered:,} "
                f"{'was' if one.covered == 1 else 'were'} in the set at 90 %"
            )
        lines.append(f"rare: class {one.label!r} has {one.n:,} of {total:,} examples: {seen}")
    if len(rare) > _MOST_CLASSES_SHOWN:
        lines.append(f"  and {len(rare) - _MOST_CLASSES_SHOWN:,} more that are rare")
    balanced = balanced_accuracy(estimates)
    if balanced is not None:
        lines.append(
            f"  mean accuracy over classes, each weighing the same: {100 * balanced:.0f} % of "
            "held-out examples; the accuracy expected above is that of the frequent classes"
        )
    return lines
