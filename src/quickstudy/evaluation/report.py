"""Reports: scores with the protocol that made them. Numbers of different protocols are never
compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.core import ProtocolError
from quickstudy.evaluation.statistics import Interval, mean_interval

__all__ = ["Paired", "Protocol", "Report", "compare"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """Everything that must be equal before two numbers may be compared.

    Args:
        data: data set.
        split: the part of it.
        n_way: classes per task, or a range.
        k_shot: support examples per class, or a range.
        n_query: queries per class.
        episodes: number of episodes.
        seed: names the list of episodes.
        transductive: whether predictions may look at other queries.
        metric: ``"accuracy"`` or ``"mse"``.
        episodes_sha256: hash of the episode list itself: which examples, which labels.
    """

    data: str
    split: str
    n_way: int | tuple[int, int]
    k_shot: int | tuple[int, int]
    n_query: int
    episodes: int
    seed: int
    transductive: bool
    metric: str
    episodes_sha256: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found.

    Args:
        learner: its name.
        protocol: under which rules.
        scores: one per episode ``[E]``: accuracy as a fraction, or mean squared error.
        class_interval: 95 % interval over classes (bootstrap), or ``None`` for regression.
        calibration_error: expected calibration error as a fraction, or ``None`` for regression.
        seconds: wall time, embedding included.
    """

    learner: str
    protocol: Protocol
    scores: Floats
    class_interval: Interval | None
    calibration_error: float | None
    seconds: float

    @property
    def mean(self) -> float:
        """The mean score over episodes."""
        return float(self.scores.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of the mean over episodes, the classes being fixed."""
        return mean_interval(self.scores)

    def __str__(self) -> str:
        p = self.protocol
        over = f"(95 % CI over {p.episodes} episodes, fixed classes, seed {p.seed})"
        mse = p.metric == "mse"
        mean = f"{self.mean:.4f}" if mse else f"{100 * self.mean:.2f}"
        spread = f" ± {self.ci95:.4f}" if mse else f" ± {100 * self.ci95:.2f}"
        if p.episodes < 2:
            spread, over = "", f"(one episode has no interval; seed {p.seed})"
        text = f"{mean}{spread} {'mean squared error' if mse else '%'} {over}"
        if self.class_interval is not None:
            low, high = 100 * self.class_interval.low, 100 * self.class_interval.high
            text += f"; over new classes {low:.1f} to {high:.1f} % (class bootstrap)"
        return text + (" [transductive]" if p.transductive else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values: fractions, not per cents; no interval is None."""
        protocol = asdict(self.protocol)
        document: dict[str, Any] = {
            "learner": self.learner,
            "data": protocol.pop("data"),
            "protocol": protocol,
            # JSON has no NaN
            self.protocol.metric: {"mean": self.mean, "ci95": _none_if_nan(self.ci95)},
        }
        if self.class_interval is not None:
            interval = [self.class_interval.low, self.class_interval.high]
            document[self.protocol.metric]["class_bootstrap95"] = interval
        if self.calibration_error is not None:
            document["calibration_error"] = self.calibration_error
        return document | {"seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two learners on the same episodes.

    Args:
        first: name of the first learner.
        second: name of the second.
        mean: mean of first minus second.
        ci95: half-width of its 95 % interval over episodes.
    """

    first: str
    second: str
    mean: float
    ci95: float

    def __str__(self) -> str:
        spread = "" if math.isnan(self.ci95) else f" ± {100 * self.ci95:.2f}"
        return f"{100 * self.mean:+.2f}{spread} points (paired)"

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as JSON-ready fractions; no interval is None."""
        return {"mean": self.mean, "ci95": _none_if_nan(self.ci95)}


def _none_if_nan(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return None if math.isnan(value) else value


def compare(first: Report, second: Report, *, across: Sequence[str] = ()) -> Paired:
    """Return the paired difference of two reports on the same list of episodes.

    Args:
        first: one report.
        second: the other.
        across: parts of the protocol that may differ, because their effect is the question.

    Raises:
        ProtocolError: if any part of the protocols differs; the message says which, and how.
    """
    differences = [
        f"{f.name}: {getattr(first.protocol, f.name)!r} and {getattr(second.protocol, f.name)!r}"
        for f in fields(Protocol)
        if f.name not in across
        and getattr(first.protocol, f.name) != getattr(second.protocol, f.name)
    ]
    if differences:
        raise ProtocolError(
            "these reports were made under different protocols and cannot be compared. They "
            "differ in " + "; ".join(differences) + ". Evaluate both with the same arguments."
        )
    gap = first.scores - second.scores
    return Paired(first.learner, second.learner, float(gap.mean()), mean_interval(gap))
