"""Learning a prior: auxiliary tasks of training classes, and nothing of the tasks to come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import TaskError
from quickstudy.fitting.calibration import Answers, Strangers, fit_head_prior, fit_open_set
from quickstudy.fitting.draws import AuxiliaryClasses, Draw
from quickstudy.fitting.evidence import gather_evidence, log_loss, own_temperature
from quickstudy.fitting.heads import HEADS, Settings, build_head, nearest_size, quick_twin
from quickstudy.fitting.novelty import distances
from quickstudy.fitting.prior import HeadPrior, TaskPrior
from quickstudy.fitting.space import Metric, MetricSettings
from quickstudy.learners.heads import CentredHead, PrototypeHead, held_out_logits

__all__ = ["LEARNED_HEADS", "learn_prior"]

LEARNED_HEADS = ("prototype", "class-mean", "ridge", "logistic", "kernel", "neighbours")
"""Heads a prior is learned for unless others are named."""

_FOLDS = 5
# logits per task kept for fitting: more say little more
_QUERIES_KEPT = 100
# sizes that settings are chosen for; tasks in between take the nearest
_WAYS_FOR_SETTINGS = (5, 20, 75)
_TASKS_FOR_SETTINGS = 60
_SHRINKAGES = (1.0, 0.9, 0.7, 0.5)
_CENTRE_PRIORS = (0.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many tasks of which size."""

    ways: tuple[int, ...]
    shots: tuple[int, ...]
    tasks: int

    def cells(self) -> Iterable[tuple[int, int, int]]:
        """Return ways, shots and number of tasks; large tasks are fewer and say more each."""
        for n in self.ways:
            for k in self.shots:
                yield n, k, max(8, round(self.tasks * min(1.0, 8 / n)))


def learn_prior(
    z: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    sources: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    heads: Sequence[str] = LEARNED_HEADS,
    ways: tuple[int, ...] = (2, 5, 10, 20, 40, 75),
    shots: tuple[int, ...] = (1, 2, 3, 5, 10),
    tasks: int = 80,
    seed: int = 0,
) -> TaskPrior:
    """Return what tasks of these classes teach about tasks with this encoder.

    Metric and settings of the heads are chosen on classes that the metric was not fitted on; then
    calibrations, thresholds and expectations are fitted on tasks of all sizes.

    Args:
        z: embeddings of training classes ``[N, D]``.
        labels: one per row.
        sources: what data a row is from: a task is drawn from one source, and from all where none
            has enough classes. ``None`` = one source.
        groups: rows of a class with the same group never stand on both sides of a task.
        heads: for which to learn.
        ways: sizes of tasks; those that the classes do not give are left out.
        shots: examples per class.
        tasks: how many tasks of every small size; of large ones there are fewer.
        seed: of all draws.

    Returns:
        The prior.

    Raises:
        TaskError: if there are too few classes or examples for any task.
    """
    classes = AuxiliaryClasses(z, labels, sources=sources, groups=groups)
    with torch.no_grad():
        metric, centre_prior = _choose_metric(classes, seed)
        seen = metric(classes.z)
        # in the odd half of the seeds: other tasks than those that chose the metric
        chosen = {
            name: _choose_settings(classes, seen, name, centre_prior, ways, shots, seed + 1)
            for name in heads
        }
    sizes = _Sizes(ways, shots, tasks)
    answers: dict[str, list[Answers]] = {name: [] for name in heads}
    strangers: list[Strangers] = []
    most_ways = float(max((n for n in ways if n <= classes.n_classes), default=2))
    for n_way, k_shot, count in sizes.cells():
        draw = classes.draw(
            n_way, k_shot, tasks=count, seed=seed + 2, n_strangers=20, z=seen, n_query=15
        ) or classes.draw(n_way, k_shot, tasks=count, seed=seed + 2, z=seen)
        if draw is None:
            continue
        for name in heads:
            best = chosen[name][nearest_size(n_way, k_shot, sorted(chosen[name]))]
            head = build_head(name, best, dim=metric.dim, centre_prior=centre_prior)
            answers[name].append(_ask(head, draw, most_ways))
        if draw.strangers.shape[1]:
            strangers.append(_distances(draw, centre_prior, most_ways))
    if not strangers:
        raise TaskError(
            f"{classes.n_classes} auxiliary classes give no task of {ways} ways and {shots} shots "
            "with queries and strangers. Give more classes or examples, or smaller sizes."
        )
    fitted: dict[str, HeadPrior] = {n: fit_head_prior(answers[n], chosen[n]) for n in heads}
    about = {
        "classes": classes.n_classes,
        "sources": sorted({n.split("/")[0] for n in classes.names if "/" in n}),
        "rows": len(classes.z),
        "seed": seed,
        "ways": list(ways),
        "shots": list(shots),
    }
    return TaskPrior(metric, centre_prior, most_ways, fitted, fit_open_set(strangers), about)


def _choose_metric(classes: AuxiliaryClasses, seed: int) -> tuple[Metric, float]:
    """Return the metric and the weight of the common centre that do best on held-out classes.

    One source after the other is held out, or half of the classes if there is but one: a task to
    come is from none of these sources. Nearest prototype, 5 and 15 ways, 1 and 5 shots; the
    settings are then fitted on all classes.
    """
    folds = classes.folds(seed)
    powers = (1.0, 0.5) if bool((classes.z >= 0).all()) else (1.0,)
    scores: dict[tuple[MetricSettings, float], float] = {}
    y = torch.from_numpy(classes.y)
    for power in powers:
        for shrinkage in _SHRINKAGES:
            settings = MetricSettings(power, shrinkage)
            found: dict[float, list[float]] = {c: [] for c in _CENTRE_PRIORS}
            for train, held in folds:
                rows = classes.rows_of(train)
                seen = Metric.fit(classes.z[rows], y[rows], settings)(classes.z)
                for n_way, k_shot in ((5, 1), (5, 5), (15, 1), (15, 5)):
                    draw = classes.draw(n_way, k_shot, tasks=100, seed=seed, classes=held, z=seen)
                    if draw is not None:
                        for c in _CENTRE_PRIORS:
                            found[c].append(_accuracy(draw, c))
            for c, values in found.items():
                if values:
                    scores[settings, c] = sum(values) / len(values)
    if not scores:
        raise TaskError(
            f"{classes.n_classes} auxiliary classes are too few to choose on held-out classes. "
            "Give at least ten, or use TaskPrior.plain."
        )
    best, centre_prior = max(scores, key=lambda key: scores[key])
    return Metric.fit(classes.z, y, best), centre_prior


def _accuracy(draw: Draw, centre_prior: float) -> float:
    head = CentredHead(PrototypeHead(distance="cosine"), prior=centre_prior)
    logits = head.predict(head.adapt(draw.support, n_way=draw.n_way), draw.query.x)
    return float((logits.argmax(2) == draw.query.y).double().mean())


def _choose_settings(
    classes: AuxiliaryClasses,
    seen: Tensor,
    name: str,
    centre_prior: float,
    ways: tuple[int, ...],
    shots: tuple[int, ...],
    seed: int,
) -> dict[tuple[int, int], Settings]:
    """Return, for some sizes of tasks, the numbers of a head with the least log loss on queries,
    each task at its best temperature."""
    grid = HEADS[name]
    if len(grid) == 1:
        return {(5, k): dict(grid[0]) for k in shots}
    chosen: dict[tuple[int, int], Settings] = {}
    for n in sorted(set(ways) & set(_WAYS_FOR_SETTINGS)):
        for k in shots:
            count = max(8, round(_TASKS_FOR_SETTINGS * min(1.0, 5 / n)))
            draw = classes.draw(n, k, tasks=count, seed=seed, z=seen)
            if draw is None:
                continue
            losses = []
            for numbers in grid:
                head = build_head(name, numbers, dim=seen.shape[1], centre_prior=centre_prior)
                losses.append(_least_loss(head, draw))
            chosen[n, k] = dict(grid[min(range(len(grid)), key=losses.__getitem__)])
    return chosen or {(5, k): dict(grid[len(grid) // 2]) for k in shots}


def _least_loss(head: CentredHead, draw: Draw) -> float:
    logits = head.predict(head.adapt(draw.support, n_way=draw.n_way), draw.query.x)
    every = torch.ones_like(draw.query.y, dtype=torch.bool)
    best = own_temperature(logits, draw.query.y, every)
    return float(log_loss(logits, draw.query.y, best).clamp(max=10).mean())


@torch.no_grad()
def _ask(head: CentredHead, draw: Draw, most_ways: float) -> Answers:
    support, n_way = draw.support, draw.n_way
    held_out = held_out_logits(quick_twin(head), support, n_way=n_way, folds=_FOLDS)
    logits = head.predict(head.adapt(support, n_way=n_way), draw.query.x)
    right = (logits.argmax(2) == draw.query.y).double()
    queries = right.shape[1]
    step = max(1, queries // _QUERIES_KEPT)
    evidence = gather_evidence(
        head.seen(support, n_way=n_way), held_out, n_way=n_way, most_ways=most_ways
    )
    accuracy = (right.sum(1) + 0.5) / (queries + 1)
    return Answers(evidence, logits[:, ::step], draw.query.y[:, ::step], accuracy)


def _distances(draw: Draw, centre_prior: float, most_ways: float) -> Strangers:
    head = CentredHead(PrototypeHead(distance="cosine"), prior=centre_prior)
    n_way, support = draw.n_way, draw.support
    centre = head.adapt(support, n_way=n_way)["centre"]
    seen = head.seen(support, n_way=n_way)
    step = max(1, draw.query.y.shape[1] // _QUERIES_KEPT)
    known, others = draw.query.x[:, ::step] - centre, draw.strangers - centre
    blank = torch.zeros(*support.y.shape, n_way)
    size = gather_evidence(seen, blank, n_way=n_way, most_ways=most_ways).size
    return Strangers(
        size, distances(seen, known, n_way=n_way), distances(seen, others, n_way=n_way)
    )
