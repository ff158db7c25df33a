"""The accuracy to expect of a task, with its interval and what it is based on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The accuracy to expect on new examples of the task's classes.

    Args:
        mean: expected accuracy, a fraction.
        low: lower end of the interval, a fraction.
        high: upper end of the interval, a fraction.
        coverage: share of tasks whose accuracy lies in such an interval.
        method: what the estimate is based on, in words.

    Example::

        z, y = torch.randn(20, 64), torch.arange(5).repeat(4)
        task = fit_task(TaskPrior.plain(64), z, y, n_way=5)
        estimate = task.expected_accuracy()
        print(estimate)  # mean, interval, and what it is based on
        estimate.mean, estimate.low, estimate.high
    """

    mean: float
    low: float
    high: float
    coverage: float
    method: str

    def __str__(self) -> str:
        return (
            f"{100 * self.mean:.0f} % ({100 * self.low:.0f} to {100 * self.high:.0f} %, "
            f"{100 * self.coverage:.0f} % interval over tasks; {self.method})"
        )
