"""Meta-overfitting: does accuracy on novel classes stop following accuracy on training classes?

Each validation scores fixed lists of episodes: of training classes, of novel classes and of any
novel domains. The same episodes come back at every step, so differences over steps are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from quickstudy.core import TaskError
from quickstudy.evaluation.statistics import Mean

__all__ = ["NOVEL", "TRAINING", "Curve", "Overfitting", "find_overfitting"]

Floats = npt.NDArray[np.float64]

TRAINING, NOVEL = "training classes", "novel classes"

_LAST_VALIDATIONS = 2  # that have to agree on a fall
_LEAST_FALL = 0.005  # half a point: a smaller fall is not worth a word, however sure it is
_LEAST_RISE = 0.05  # of training classes, before novel ones that stand still say anything
_STALLED_SHARE = 0.2  # novel classes that gain less than a fifth of that stand still


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores of fixed lists of episodes over a training.

    Args:
        steps: of the ``V`` validations, ascending.
        scores: one score per validation and episode ``[V, E]`` for each list, by its name:
            :data:`TRAINING`, :data:`NOVEL`, or that of a domain. ``E`` may differ between lists.
        metric: ``"accuracy"``, or ``"mse"`` (less is better).

    Raises:
        TaskError: if a list has not one row for each step.
    """

    steps: tuple[int, ...]
    scores: Mapping[str, Floats]
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        for name, scores in self.scores.items():
            if scores.ndim != 2 or len(scores) != len(self.steps):
                raise TaskError(
                    f"the scores of {name} are {list(scores.shape)}; a curve over "
                    f"{len(self.steps)} validations needs [{len(self.steps)}, episodes]."
                )

    @classmethod
    def from_lines(cls, lines: Sequence[Mapping[str, Any]]) -> Curve | None:
        """Return the curve in the lines of a run's ``curve.jsonl``, or ``None`` if there are none.

        Lines whose lists are not those of the last one are left out: they cannot be paired.
        """
        if not lines:
            return None
        sizes = {name: len(scores) for name, scores in lines[-1]["scores"].items()}
        same = [e for e in lines if {n: len(s) for n, s in e["scores"].items()} == sizes]
        return cls(
            tuple(int(entry["step"]) for entry in same),
            {n: np.array([e["scores"][n] for e in same], dtype=np.float64) for n in sizes},
            str(lines[-1]["metric"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return means and half-widths of 95 % intervals by step, JSON-ready fractions."""
        lists = {}
        for name, scores in self.scores.items():
            means = [Mean.of(row, over="episodes") for row in scores]
            lists[name] = {
                "episodes": scores.shape[1],
                "mean": [round(m.mean, 6) for m in means],
                "ci95": [None if np.isnan(m.ci95) else round(m.ci95, 6) for m in means],
            }
        return {"metric": self.metric, "steps": list(self.steps), "lists": lists}


@dataclass(frozen=True, slots=True)
class Overfitting:
    """Evidence that a learner goes on learning its training classes and nothing else.

    Args:
        novel: the list that does not follow: :data:`NOVEL`, or a domain.
        kind: ``"falls"``: it was better before; ``"stalls"``: it stands still while training
            classes go on rising.
        since: step that the last one is compared with; with ``"falls"`` the best one.
        last: the last step.
        before: mean score of the list at ``since``.
        after: over the last two validations.
        training_before: mean score of the training classes at ``since``.
        training_after: like ``after``.
        change: of the list, paired; its interval holds for all comparisons together, and covers
            how much the list fluctuates between validations.
        gap: growth of the distance between training classes and the list.
        episodes: of the list.
        comparisons: how many steps and lists were looked at.
        metric: ``"accuracy"`` or ``"mse"``.
    """

    novel: str
    kind: Literal["falls", "stalls"]
    since: int
    last: int
    before: float
    after: float
    training_before: float
    training_after: float
    change: Mean
    gap: Mean
    episodes: int
    comparisons: int
    metric: str

    def __str__(self) -> str:
        low, high = self._number(self.change.low, sign=True), self._number(self.change.high, True)
        what = {"falls": "got worse", "stalls": "did not rise"}[self.kind]
        return (
            f"training and novel tasks part: {self.novel} {what}, from "
            f"{self._level(self.before)} at step {self.since:,} to {self._level(self.after)} "
            f"in the last two validations, to step {self.last:,} "
            f"({self._number(self.change.mean, True)}, 95 % CI {low} to {high}, paired over "
            f"{self.episodes} episodes, for all {self.comparisons} comparisons together), while "
            f"training classes went from {self._level(self.training_before)} to "
            f"{self._level(self.training_after)}. The gap grew by "
            f"{self._number(self.gap.mean)} (95 % CI {self._number(self.gap.low)} to "
            f"{self._number(self.gap.high)})"
        )

    def advice(self, *, kept: int) -> str:
        """Return what helps.

        Args:
            kept: step of the weights that were kept.
        """
        if self.kind == "stalls":
            where = f"Steps after {self.since:,} taught nothing that carries over. "
        elif kept <= self.since:
            where = f"The weights that were kept (step {kept:,}) are from before the fall. "
        else:
            name = f"'{self.novel}'" if " " in self.novel else self.novel
            where = (
                f"The weights that were kept (step {kept:,}) are from after it; "
                f"choose_by={name} would keep step {self.since:,}. "
            )
        return (
            where + "What helps: more classes or tasks (rotations as classes, another data set), "
            "augmentation (data.jitter, data.class_jitter), fewer steps (steps, patience), "
            "weight_decay, a smaller encoder"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as JSON-ready fractions."""
        return asdict(self) | {"change": _ends(self.change), "gap": _ends(self.gap)}

    def _level(self, value: float) -> str:
        return f"{100 * value:.2f} %" if self.metric == "accuracy" else f"an error of {value:.4f}"

    def _number(self, value: float, sign: bool = False) -> str:
        # an error that grows is a change for the worse, and is shown as it grows
        shown = 100 * value if self.metric == "accuracy" else (-value if sign else value)
        digits = f"{shown:{'+' if sign else ''}.{2 if self.metric == 'accuracy' else 4}f}"
        return f"{digits} points" if self.metric == "accuracy" else digits


def _ends(mean: Mean) -> dict[str, float]:
    """Return a change with both ends of its interval."""
    return {"mean": mean.mean, "low": mean.low, "high": mean.high}


def find_overfitting(curve: Curve) -> tuple[Overfitting, ...]:
    """Return the lists of novel tasks that stopped following the training classes; none in a
    healthy run.

    The last two validations are compared with each one before them. A list *falls* if they are
    below its best step: the 95 % interval of the difference excludes 0; the fall is at least half a
    point, training classes did not fall, and the gap between both grew (its 95 % interval excludes
    0). A list *stalls* if since some step training classes rose by at least five points, and its
    own gain is, up to the end of its interval, less than a fifth of theirs.

    The interval holds for all steps and lists together (Bonferroni), as the best of many steps
    looks good by chance as well. It covers episodes (paired) and weights: a curve goes up and down
    from one validation to the next by more than its episodes tell. How much is estimated from its
    second differences, which no steady rise or fall enters.

    Args:
        curve: of a training; below four validations nothing is found, below six or so little, as
            they do not tell how much the curve fluctuates.

    Returns:
        At most one finding for each list, in their order.
    """
    novel = [name for name in curve.scores if name != TRAINING]
    if TRAINING not in curve.scores or len(curve.steps) < 4 or not novel:
        return ()
    sign = -1.0 if curve.metric == "mse" else 1.0
    training = sign * curve.scores[TRAINING]
    comparisons = (len(curve.steps) - _LAST_VALIDATIONS) * len(novel)
    found = []
    for name in novel:
        scores = sign * curve.scores[name]
        seen = _find_fall(scores, training, curve.metric, comparisons)
        kind: Literal["falls", "stalls"] = "falls"
        if seen is None:
            seen = _find_stall(scores, training, curve.metric, comparisons)
            kind = "stalls"
        if seen is None:
            continue
        at, change, gap = seen
        means, ours = curve.scores[name].mean(1), curve.scores[TRAINING].mean(1)
        found.append(
            Overfitting(
                novel=name,
                kind=kind,
                since=curve.steps[at],
                last=curve.steps[-1],
                before=float(means[at]),
                after=float(means[-_LAST_VALIDATIONS:].mean()),
                training_before=float(ours[at]),
                training_after=float(ours[-_LAST_VALIDATIONS:].mean()),
                change=change,
                gap=gap,
                episodes=scores.shape[1],
                comparisons=comparisons,
                metric=curve.metric,
            )
        )
    return tuple(found)


def _find_fall(
    scores: Floats, training: Floats, metric: str, comparisons: int
) -> tuple[int, Mean, Mean] | None:
    """Return the best step, the change since and the growth of the gap, if there is a fall."""
    best = int(scores.mean(1).argmax())
    if best >= len(scores) - _LAST_VALIDATIONS:
        return None
    change = _fluctuating(scores, best, comparisons)
    own = Mean.of(_since(training, best), over="episodes")
    gap = _gap(_since(training, best), _since(scores, best))
    least = _LEAST_FALL * _unit(scores, metric)
    fell = change.high < 0 and change.mean <= -least
    return (best, change, gap) if fell and own.high >= 0 and gap.low > 0 else None


def _find_stall(
    scores: Floats, training: Floats, metric: str, comparisons: int
) -> tuple[int, Mean, Mean] | None:
    """Return the step since which training classes rose most without the others, if there is."""
    least, found = _LEAST_RISE * _unit(scores, metric), None
    for at in range(len(scores) - _LAST_VALIDATIONS):
        rise = Mean.of(_since(training, at), over="episodes", comparisons=comparisons)
        change = _fluctuating(scores, at, comparisons)
        gap = _gap(_since(training, at), _since(scores, at))
        stands = rise.low >= least and change.high <= _STALLED_SHARE * rise.mean and gap.low > 0
        if stands and (found is None or gap.mean > found[2].mean):
            found = (at, change, gap)
    return found


def _since(scores: Floats, at: int) -> Floats:
    """Return the change ``[E]`` of each episode since a step, by the last validations."""
    change: Floats = scores[-_LAST_VALIDATIONS:].mean(0) - scores[at]
    return change


def _unit(scores: Floats, metric: str) -> float:
    """Return what a change is measured in: points, or shares of the best error."""
    return 1.0 if metric == "accuracy" else float(np.abs(scores.mean(1)).min())


def _fluctuating(scores: Floats, at: int, comparisons: int) -> Mean:
    """Return the change since a step, with an interval that also covers fluctuation between
    validations."""
    change = Mean.of(_since(scores, at), over="episodes", comparisons=comparisons)
    bends = np.diff(scores.mean(1), 2)  # 6 times the variance of a mean, if these are independent
    spread = float(np.sqrt((bends**2).mean() / 6 * (1 + 1 / _LAST_VALIDATIONS)))
    half = spread * float(stats.t.ppf(1 - 0.025 / comparisons, len(bends)))
    return replace(change, ci95=float(np.hypot(change.high - change.mean, half)))


def _gap(ours: Floats, theirs: Floats) -> Mean:
    """Return the growth of training minus novel from the changes of both; they are independent."""
    mean, n = float(ours.mean() - theirs.mean()), min(len(ours), len(theirs))
    if n < 2:
        return Mean(mean, float("nan"), n, "episodes")
    variance = ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs)
    half = float(stats.t.ppf(0.975, n - 1) * np.sqrt(variance))
    return Mean(mean, half, n, "episodes")
