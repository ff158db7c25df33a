"""Reports: scores with their protocol. Scores of different protocols are never compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from quickstudy.core import ProtocolError
from quickstudy.core.arguments import checked
from quickstudy.evaluation.classes import CLASS_METHOD
from quickstudy.evaluation.likelihood import Likelihood
from quickstudy.evaluation.metrics import ACCURACY, Metric, metric_named
from quickstudy.evaluation.statistics import Interval, Mean

__all__ = ["Paired", "Protocol", "Report", "compare"]

Floats = npt.NDArray[np.float64]


@checked
@dataclass(frozen=True, slots=True)
class Protocol:
    """Everything that must be equal before two numbers may be compared.

    Args:
        data: name of the data set.
        split: the part of it.
        n_way: classes per task, or a range.
        k_shot: support examples per class, or a range.
        n_query: queries per class.
        episodes: number of episodes.
        seed: names the list of episodes.
        transductive: whether the prediction for a query may use other queries.
        metric: name of the metric: ``"accuracy"`` or ``"mse"``, see
            :data:`quickstudy.evaluation.METRICS`.
        episodes_sha256: hash of the episodes: which examples, with which labels.

    Raises:
        ProtocolError: if there is no such metric.

    Example::

        source = PoolSource(load_pool("digits"))
        report = evaluate(NearestNeighbour(), source, EpisodeSpec(5, 1), episodes=20, seed=0)
        protocol = report.protocol
        print(protocol.data, protocol.n_way, protocol.k_shot, protocol.episodes_sha256)
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

    def __post_init__(self) -> None:
        metric_named(self.metric)


@checked
@dataclass(frozen=True, slots=True)
class Report:
    """The scores of a learner on a list of episodes, with the protocol.

    Args:
        learner: name of the learner.
        protocol: everything that another report must share to be comparable.
        scores: one per episode ``[E]``: accuracy as a fraction, or mean squared error.
        class_interval: 95 % interval over new classes (see
            :func:`quickstudy.evaluation.class_interval`); ``None`` if there is none: in regression,
            or where every episode holds every class.
        calibration_error: expected calibration error as a fraction, or ``None`` for regression.
        seconds: wall time, embedding included.
        likelihood: in regression, how likely the targets were under what the learner said, and
            whether its intervals hold; ``None`` if that is not known.

    Example::

        source = PoolSource(load_pool("digits"))
        report = evaluate(NearestNeighbour(), source, EpisodeSpec(5, 1), episodes=20)
        print(report)  # mean, interval and what it is over
        report.mean, report.ci95
        report.scores  # [20]
    """

    learner: str
    protocol: Protocol
    scores: Floats
    class_interval: Interval | None
    calibration_error: float | None
    seconds: float
    likelihood: Likelihood | None = None

    @property
    def metric(self) -> Metric:
        """What the scores measure, and whether more is better."""
        return metric_named(self.protocol.metric)

    @property
    def mean(self) -> float:
        """The mean score over episodes."""
        return float(self.scores.mean())

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of the mean over episodes, the classes being fixed."""
        return self.score.ci95

    @property
    def score(self) -> Mean:
        """Mean and interval as one value, with what they are over."""
        return Mean.of(self.scores, over="episodes")

    def __str__(self) -> str:
        p, score, metric = self.protocol, self.score, self.metric
        fixed = ", fixed classes" if metric.fraction else ""  # a regression has no classes
        over = f"(95 % CI over {score.n} {score.over}{fixed}, seed {p.seed})"
        if score.n < 2:
            over = f"(one episode has no interval; seed {p.seed})"
        elif metric.fraction and not score.told():
            over = f"(over {score.n} {score.over}, seed {p.seed})"
        text = f"{metric.text(score)} {over}"
        if self.class_interval is not None and metric.fraction:
            text += f"; over new classes {self.class_interval.percent()} %"
        if self.likelihood is not None:
            text += f"; {self.likelihood}"
        return text + (" [transductive]" if p.transductive else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values: fractions, not per cents; no interval is None."""
        protocol = asdict(self.protocol)
        document: dict[str, Any] = {
            "learner": self.learner,
            "data": protocol.pop("data"),
            "protocol": protocol,
            self.protocol.metric: self.score.to_dict(),
        }
        if self.class_interval is not None:
            interval = [self.class_interval.low, self.class_interval.high]
            # the second is its key in documents of earlier versions, which bootstrapped it
            document[self.protocol.metric] |= {
                "class_interval95": interval,
                "class_bootstrap95": interval,
                "class_interval_method": CLASS_METHOD,
            }
        if self.calibration_error is not None:
            document["calibration_error"] = self.calibration_error
        if self.likelihood is not None:
            document |= self.likelihood.to_dict()
        return document | {"seconds": round(self.seconds, 3)}


@checked
@dataclass(frozen=True, slots=True)
class Paired:
    """The difference of two learners on the same episodes.

    Args:
        first: name of the first learner.
        second: name of the second learner.
        gap: mean of first minus second, over episodes.
        metric: of the scores.

    Example::

        source, spec = PoolSource(load_pool("digits")), EpisodeSpec(5, 1)
        first = evaluate(NearestNeighbour(), source, spec, episodes=20)
        second = evaluate(PrototypicalNetwork(Conv4()), source, spec, episodes=20)
        print(compare(first, second))  # in points, with a paired interval
    """

    first: str
    second: str
    gap: Mean
    metric: Metric = ACCURACY

    @property
    def mean(self) -> float:
        """Mean of first minus second."""
        return self.gap.mean

    @property
    def ci95(self) -> float:
        """Half-width of its 95 % interval over episodes."""
        return self.gap.ci95

    def __str__(self) -> str:
        return f"{self.metric.difference(self.gap)} (paired)"

    def to_dict(self) -> dict[str, float | None]:
        """Return the difference as JSON-ready fractions; no interval is None."""
        return self.gap.to_dict()


@checked
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
    gap = Mean.of(first.scores - second.scores, over="episodes")
    return Paired(first.learner, second.learner, gap, first.metric)
