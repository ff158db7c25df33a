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
from quickstudy.core.arguments import checked
from quickstudy.evaluation.metrics import metric_named
from quickstudy.evaluation.statistics import Mean

__all__ = ["NOVEL", "TRAINING", "Curve", "Overfitting", "find_overfitting"]

Floats = npt.NDArray[np.float64]

TRAINING, NOVEL = "training classes", "novel classes"

_LAST_VALIDATIONS = 2  # their average is compared with earlier validations
_LEAST_FALL = 0.005  # half a point: a smaller fall is not reported, however certain it is
_LEAST_RISE = 0.05  # of training classes: after a smaller rise, standing still is no evidence
_STALLED_SHARE = 0.2  # a list that gains less than this share of the rise counts as stalled


@checked
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

    Example::

        training, novel = torch.rand(4, 100).double(), torch.rand(4, 100).double()
        scores = {"training classes": training.numpy(), "novel classes": novel.numpy()}
        curve = Curve((500, 1000, 1500, 2000), scores)
        curve.to_dict()["lists"]["novel classes"]["mean"]
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

        Lines with other lists or numbers of episodes than the last line are left out, because they
        cannot be paired with it.
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
    """Evidence that training still improves a learner on its training classes only.

    Args:
        novel: name of the list that stopped following: :data:`NOVEL`, or a domain.
        kind: ``"falls"``: its score was better before; ``"stalls"``: its score stands still while
            that of the training classes rises.
        since: step that the last validations are compared with; for ``"falls"`` the best step.
        last: the last step.
        before: mean score of the list at ``since``.
        after: mean score of the list over the last two validations.
        training_before: mean score of the training classes at ``since``.
        training_after: mean score of the training classes over the last two validations.
        change: of the list's score, paired over episodes. Its interval holds for all comparisons
            together, and also covers fluctuation between validations.
        gap: growth of the difference between training classes and the list.
        episodes: number of episodes of the list.
        comparisons: how many pairs of step and list were compared.
        metric: ``"accuracy"`` or ``"mse"``.

    Example::

        rising = torch.linspace(0.70, 0.99, 8).double()[:, None].expand(8, 100).numpy()
        falling = torch.linspace(0.80, 0.60, 8).double()[:, None].expand(8, 100).numpy()
        scores = {"training classes": rising, "novel classes": falling}
        (found,) = find_overfitting(Curve(tuple(range(8)), scores))
        print(found, found.advice(kept=0))
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
            f"novel tasks no longer follow training tasks: {self.novel} {what}, from "
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
        """Return sentences that say what would help.

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
        # errors were negated, so that more is better; a change is shown with the error's own sign
        shown = 100 * value if self.metric == "accuracy" else (-value if sign else value)
        digits = f"{shown:{'+' if sign else ''}.{2 if self.metric == 'accuracy' else 4}f}"
        return f"{digits} points" if self.metric == "accuracy" else digits


def _ends(mean: Mean) -> dict[str, float]:
    """Return a change with both ends of its interval."""
    return {"mean": mean.mean, "low": mean.low, "high": mean.high}


@checked
def find_overfitting(curve: Curve) -> tuple[Overfitting, ...]:
    """Return a finding for each list of novel tasks that stopped following the training classes.

    The last two validations are compared with each one before them. A list *falls* if they lie
    below its best step: the 95 % interval of the difference excludes 0, the fall is at least half a
    point, training classes did not fall, and the gap between both grew (its 95 % interval excludes
    0). A list *stalls* if since some step training classes rose by at least five points, and even
    the upper end of the interval of its own gain is less than a fifth of theirs.

    The interval holds for all steps and lists together (Bonferroni), because the best of many steps
    looks good by chance too. It covers two sources of chance: the episodes (differences are
    paired), and the weights, with which a curve moves up and down from one validation to the next
    by more than its episodes explain. The size of these fluctuations is estimated from second
    differences, in which a steady rise or fall cancels.

    Args:
        curve: of a training. With fewer than four validations nothing is found; with fewer than
            about six little is, because they hardly show how much the curve fluctuates.

    Returns:
        At most one finding for each list, in their order; none for a healthy run.
    """
    novel = [name for name in curve.scores if name != TRAINING]
    if TRAINING not in curve.scores or len(curve.steps) < 4 or not novel:
        return ()
    sign = 1.0 if metric_named(curve.metric).higher_is_better else -1.0
    training = sign * curve.scores[TRAINING]
    comparisons = (len(curve.steps) - _LAST_VALIDATIONS) * len(novel)
    found = []
    for name in novel:
        scores = sign * curve.scores[name]
        evidence = _find_fall(scores, training, curve.metric, comparisons)
        kind: Literal["falls", "stalls"] = "falls"
        if evidence is None:
            evidence = _find_stall(scores, training, curve.metric, comparisons)
            kind = "stalls"
        if evidence is None:
            continue
        at, change, gap = evidence
        means, training_means = curve.scores[name].mean(1), curve.scores[TRAINING].mean(1)
        found.append(
            Overfitting(
                novel=name,
                kind=kind,
                since=curve.steps[at],
                last=curve.steps[-1],
                before=float(means[at]),
                after=float(means[-_LAST_VALIDATIONS:].mean()),
                training_before=float(training_means[at]),
                training_after=float(training_means[-_LAST_VALIDATIONS:].mean()),
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
    """Return the best step, the change since and the growth of the gap; ``None`` without a fall."""
    best = int(scores.mean(1).argmax())
    if best >= len(scores) - _LAST_VALIDATIONS:
        return None
    change = _change_since(scores, best, comparisons)
    training_change = Mean.of(_changes(training, best), over="episodes")
    gap = _gap_growth(_changes(training, best), _changes(scores, best))
    fell = change.high < 0 and change.mean <= -_LEAST_FALL * _unit(scores, metric)
    # where training classes fall as well, something else is wrong than overfitting
    training_fell = training_change.high < 0
    return (best, change, gap) if fell and not training_fell and gap.low > 0 else None


def _find_stall(
    scores: Floats, training: Floats, metric: str, comparisons: int
) -> tuple[int, Mean, Mean] | None:
    """Return step, change and growth of the gap where the gap grew most; ``None`` without a stall.

    The step is the one since which training classes rose and the list did not.
    """
    least, found, widest = _LEAST_RISE * _unit(scores, metric), None, 0.0
    for at in range(len(scores) - _LAST_VALIDATIONS):
        rise = Mean.of(_changes(training, at), over="episodes", comparisons=comparisons)
        change = _change_since(scores, at, comparisons)
        gap = _gap_growth(_changes(training, at), _changes(scores, at))
        stalled = rise.low >= least and change.high <= _STALLED_SHARE * rise.mean and gap.low > 0
        if stalled and gap.mean > widest:
            found, widest = (at, change, gap), gap.mean
    return found


def _changes(scores: Floats, at: int) -> Floats:
    """Return the change of each episode's score from a step to the last validations ``[E]``."""
    changes: Floats = scores[-_LAST_VALIDATIONS:].mean(0) - scores[at]
    return changes


def _unit(scores: Floats, metric: str) -> float:
    """Return the unit of a change: 1 for accuracies; for errors the least one of the curve."""
    return 1.0 if metric == "accuracy" else float(np.abs(scores.mean(1)).min())


def _change_since(scores: Floats, at: int, comparisons: int) -> Mean:
    """Return the mean change since a step; its interval also covers fluctuation between
    validations."""
    change = Mean.of(_changes(scores, at), over="episodes", comparisons=comparisons)
    # m(v-1) - 2 m(v) + m(v+1) has variance (1 + 4 + 1) s^2 if each mean fluctuates by s; a steady
    # rise or fall cancels in it
    second_differences = np.diff(scores.mean(1), 2)
    variance = (second_differences**2).mean() / 6
    # of the mean of the last validations, minus one earlier validation
    spread = float(np.sqrt(variance * (1 + 1 / _LAST_VALIDATIONS)))
    half = spread * float(stats.t.ppf(1 - 0.025 / comparisons, len(second_differences)))
    # episodes and weights are independent sources of chance: their variances add up
    return replace(change, ci95=float(np.hypot(change.high - change.mean, half)))


def _gap_growth(training: Floats, novel: Floats) -> Mean:
    """Return the growth of training minus novel scores, from the changes of both ``[E]``.

    The lists hold different episodes, so their variances add up.
    """
    mean, n = float(training.mean() - novel.mean()), min(len(training), len(novel))
    if n < 2:
        return Mean(mean, float("nan"), n, "episodes")
    variance = training.var(ddof=1) / len(training) + novel.var(ddof=1) / len(novel)
    half = float(stats.t.ppf(0.975, n - 1) * np.sqrt(variance))
    return Mean(mean, half, n, "episodes")
