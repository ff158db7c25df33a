"""The result of a comparison: scores on the same episodes, paired differences, ranks and costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy import stats

from quickstudy.core import ConfigError, ProtocolError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.evaluation.cost import Cost
from quickstudy.evaluation.metrics import Metric
from quickstudy.evaluation.report import Report, compare
from quickstudy.evaluation.statistics import Mean, holm, paired_p_value

__all__ = ["Approach", "Cell", "Comparison", "Difference", "Role"]

Role = Literal["trained distribution", "novel classes", "choosing domain", "novel domain"]
"""How tasks relate to a learner's training. A choosing domain is one that the learner was not
trained on, but whose score decided which of its weights were kept."""

# decimal places to which means are compared
_MEAN_DIGITS = 12


@checked
@dataclass(frozen=True, slots=True)
class Cell:
    """The scores of one learner on one list of episodes.

    Args:
        learner: name of the learner.
        tasks: name of the list.
        role: how the list relates to this learner's training.
        report: the scores.

    Example::

        source, spec = PoolSource(load_pool("digits")), EpisodeSpec(5, 1)
        report = evaluate(NearestNeighbour(), source, spec, episodes=20)
        cell = Cell("pixels", "digits, 5-way 1-shot", "novel domain", report)
        print(cell.learner, cell.report.score.percent())
    """

    learner: str
    tasks: str
    role: Role
    report: Report


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two learners on the same episodes.

    Args:
        tasks: name of the list of episodes.
        first: name of the first learner.
        second: name of the second learner.
        gap: mean of first minus second, with its interval over episodes.
        p: p-value of the paired t-test.
        p_holm: the p-value adjusted for all pairs on this list (Holm 1979).

    Example::

        difference = comparison.paired[0]
        print(difference.first, "minus", difference.second, difference.gap.points())
        clear = difference.p_holm < 0.05
        document = difference.to_dict()
    """

    tasks: str
    first: str
    second: str
    gap: Mean
    p: float
    p_holm: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        names = {"tasks": self.tasks, "first": self.first, "second": self.second}
        return names | self.gap.to_dict() | {"p": self.p, "p_holm": self.p_holm}


@dataclass(frozen=True, slots=True)
class Approach:
    """One row of the approach table: the cost of a learner and the accuracy it reaches.

    Args:
        learner: name of the learner.
        family: metric, gradient, ... or baseline.
        cost: time and memory, or ``None`` if they were not measured.
        accuracy: by role, mean score over the lists of that role. Of novel domains only those count
            that are novel to all learners. The interval is that of the mean over these very lists.
        drop: how much worse the mean of the novel domains is than the trained distribution;
            ``None`` if one is missing.
        rank: place among the learners, 1 = best, averaged over domains that are novel to all;
            ``None`` without such domains.

    Example::

        for row in comparison.approaches:
            scores = {role: mean.percent() for role, mean in row.accuracy.items()}
            print(row.learner, row.family, scores, row.rank)
    """

    learner: str
    family: str
    cost: Cost | None
    accuracy: Mapping[Role, Mean]
    drop: Mean | None
    rank: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "learner": self.learner,
            "family": self.family,
            "cost": None if self.cost is None else self.cost.to_dict(),
            "accuracy": {role: mean.to_dict() for role, mean in self.accuracy.items()},
            "drop": None if self.drop is None else self.drop.to_dict(),
            "mean_rank": self.rank,
        }


@checked
@dataclass(frozen=True)
class Comparison:
    """Scores of many learners on the same lists of episodes.

    Args:
        cells: one for each learner and list.
        families: family of each learner, by its name.
        costs: cost of each learner that was measured, by its name.
        seeds: groups of learners that differ only in their training seed: their names, by a name
            for the group.
        remarks: sentences that belong beside the numbers.

    Raises:
        ProtocolError: if two learners were not scored on the same episodes of a list, a cell is
            missing or given twice, or the lists have different metrics.
        ConfigError: if there is no cell, or a learner has no family.

    Example::

        source, spec = PoolSource(load_pool("digits")), EpisodeSpec(5, 1)
        learners = {"pixels": NearestNeighbour(), "untrained": PrototypicalNetwork(Conv4())}
        reports = {n: evaluate(one, source, spec, episodes=20) for n, one in learners.items()}
        cells = [Cell(name, "digits", "novel domain", report) for name, report in reports.items()]
        comparison = Comparison(cells, {"pixels": "baseline", "untrained": "metric"})
        print(comparison.best("digits"), comparison.paired[0].gap.points())
    """

    cells: Sequence[Cell]
    families: Mapping[str, str]
    costs: Mapping[str, Cost] = field(default_factory=dict)
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.cells:
            raise ConfigError("a comparison needs at least one cell: a learner's scores on a list.")
        wanted = {(learner, tasks) for learner in self.learners for tasks in self.tasks}
        given = [(cell.learner, cell.tasks) for cell in self.cells]
        if len(given) != len(set(given)) or set(given) != wanted:
            odd = sorted(wanted - set(given)) or sorted(x for x in given if given.count(x) > 1)
            raise ProtocolError(
                f"a comparison needs each learner once on each list of tasks; {odd[:2]} is missing "
                "or there twice."
            )
        for tasks in self.tasks:
            first, *rest = self._on(tasks).values()
            for cell in rest:
                compare(first.report, cell.report)
        metrics = sorted({cell.report.metric.name for cell in self.cells})
        if len(metrics) > 1:
            raise ProtocolError(
                f"the lists of a comparison need one metric; got {' and '.join(metrics)}. Compare "
                "classification and regression apart."
            )
        if missing := [name for name in self.learners if name not in self.families]:
            raise ConfigError(
                f"families names no family for {missing[0]!r}. Name one for each learner: "
                "'metric', 'gradient', 'baseline' ..."
            )

    @property
    def metric(self) -> Metric:
        """What the scores measure, and whether more is better."""
        return self.cells[0].report.metric

    @property
    def learners(self) -> tuple[str, ...]:
        """The learners' names, in the order given."""
        return tuple(dict.fromkeys(cell.learner for cell in self.cells))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The lists' names, in the order given."""
        return tuple(dict.fromkeys(cell.tasks for cell in self.cells))

    def _on(self, tasks: str) -> dict[str, Cell]:
        found = {cell.learner: cell for cell in self.cells if cell.tasks == tasks}
        if not found:
            raise ConfigError(f"no list of tasks {tasks!r}. {nearest_names(tasks, self.tasks)}")
        return found

    def quality(self, learner: str, tasks: str) -> float:
        """Return the mean score of a learner on a list, an error negated: the largest is best.

        It is rounded: the same number of right answers, added up in another order, must count as
        the same score.
        """
        report = self.cell(learner, tasks).report
        return float(self.metric.quality(np.array(round(report.mean, _MEAN_DIGITS))))

    def cell(self, learner: str, tasks: str) -> Cell:
        """Return the scores of one learner on one list.

        Raises:
            ConfigError: if there is no such learner or list.
        """
        here = self._on(tasks)
        if learner not in here:
            raise ConfigError(f"no learner {learner!r}. {nearest_names(learner, here)}")
        return here[learner]

    @cached_property
    def paired(self) -> tuple[Difference, ...]:
        """All pairs of learners on all lists; Holm's correction is over the pairs of a list."""
        found = []
        for tasks in self.tasks:
            here = self._on(tasks)
            pairs = list(combinations(here, 2))
            gaps = [here[a].report.scores - here[b].report.scores for a, b in pairs]
            raw = np.array([paired_p_value(gap) for gap in gaps])
            for (a, b), p, adjusted in zip(pairs, raw, holm(raw), strict=True):
                gap = compare(here[a].report, here[b].report).gap
                found.append(Difference(tasks, a, b, gap, float(p), float(adjusted)))
        return tuple(found)

    def best(self, tasks: str) -> tuple[str, tuple[str, ...]]:
        """Return the learner with the best mean on a list, and those not clearly behind it.

        The best is the highest accuracy or the smallest error, as the metric has it.

        Not clearly behind: the Holm-adjusted p-value of the difference is 0.05 or more.
        """
        here = self._on(tasks)
        top = max(here, key=lambda name: self.quality(name, tasks))
        equal = tuple(
            d.second if d.first == top else d.first
            for d in self.paired
            if d.tasks == tasks and top in (d.first, d.second) and d.p_holm >= 0.05
        )
        return top, equal

    @cached_property
    def approaches(self) -> tuple[Approach, ...]:
        """The approach table, a row for each learner."""
        ranks = self._ranks()
        rows = []
        for name in self.learners:
            by_role: dict[Role, list[Mean]] = defaultdict(list)
            for cell in self.cells:
                outside = cell.role == "novel domain" and cell.tasks not in self.novel_to_all
                if cell.learner == name and not outside:
                    by_role[cell.role].append(cell.report.score)
            accuracy = {role: Mean.average(means, over="lists") for role, means in by_role.items()}
            trained, novel = accuracy.get("trained distribution"), accuracy.get("novel domain")
            drop = None
            if trained is not None and novel is not None:
                # the lists hold different episodes, so their errors are independent
                half = math.hypot(trained.ci95, novel.ci95)
                lost = float(self.metric.quality(np.array(trained.mean - novel.mean)))
                drop = Mean(lost, half, novel.n, novel.over)
            rows.append(
                Approach(
                    name,
                    self.families[name],
                    self.costs.get(name),
                    accuracy,
                    drop,
                    ranks.get(name),
                )
            )
        return tuple(rows)

    @cached_property
    def novel_to_all(self) -> tuple[str, ...]:
        """The lists of domains that no learner was trained on or chosen by.

        Means over novel domains can be compared between learners only if they are over these.
        """
        return tuple(
            tasks
            for tasks in self.tasks
            if all(cell.role == "novel domain" for cell in self._on(tasks).values())
        )

    def _ranks(self) -> dict[str, float]:
        """Return each learner's place, averaged over the domains that are novel to all."""
        places: dict[str, list[float]] = defaultdict(list)
        for tasks in self.novel_to_all:
            here = self._on(tasks)
            order = stats.rankdata([-self.quality(name, tasks) for name in here])  # ties share
            for name, place in zip(here, order, strict=True):
                places[name].append(float(place))
        return {name: float(np.mean(values)) for name, values in places.items()}

    @cached_property
    def over_seeds(self) -> tuple[tuple[str, str, Mean], ...]:
        """Means over training seeds: ``(group, list, mean)`` for each group of two runs or more."""
        found = []
        for group, names in self.seeds.items():
            if len(names) < 2:
                continue
            for tasks in self.tasks:
                means = [self.cell(name, tasks).report.mean for name in names]
                found.append((group, tasks, Mean.of(means, over="seeds")))
        return tuple(found)

    def hardest(self, tasks: str, *, n: int = 3) -> list[tuple[int, float]]:
        """Return the episodes of a list with the worst mean score over the learners.

        Args:
            tasks: name of the list.
            n: how many, at least 0; fewer where the list has fewer.

        Returns:
            ``(number of the episode, mean score)`` of each, the hardest first.

        Raises:
            ConfigError: if there is no such list, or ``n`` is negative.
        """
        if n < 0:
            raise ConfigError(f"n must be at least 0; got {n}.")
        mean = np.mean([cell.report.scores for cell in self._on(tasks).values()], axis=0)
        order = np.argsort(self.metric.quality(mean), kind="stable")
        return [(int(i), float(mean[i])) for i in order[:n]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; accuracies are fractions."""
        return {
            "metric": {
                "name": self.metric.name,
                "higher_is_better": self.metric.higher_is_better,
            },
            "results": [
                {"tasks": cell.tasks, "role": cell.role} | cell.report.to_dict()
                for cell in self.cells
            ],
            "paired": [difference.to_dict() for difference in self.paired],
            "approaches": [approach.to_dict() for approach in self.approaches],
            "remarks": list(self.remarks),
            "over_seeds": [
                {"group": group, "tasks": tasks, "seeds": mean.n} | mean.to_dict()
                for group, tasks, mean in self.over_seeds
            ],
        }
