"""Learning a prior from auxiliary tasks: tasks drawn from classes that are not the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Episode, TaskError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least
from quickstudy.fitting.calibration import Answers, Strangers, fit_head_prior, fit_open_set
from quickstudy.fitting.draws import AuxiliaryClasses, AuxiliaryEpisodes
from quickstudy.fitting.evidence import gather_evidence, log_loss, own_temperature
from quickstudy.fitting.heads import HEADS, Settings, build_head, nearest_size, quick_twin
from quickstudy.fitting.novelty import distances
from quickstudy.fitting.prior import HeadPrior, TaskPrior
from quickstudy.fitting.space import Metric, MetricSettings
from quickstudy.learners.base import query_logits
from quickstudy.learners.heads import CentredHead, PrototypeHead, held_out_logits

__all__ = ["LEARNED_HEADS", "learn_prior"]

LEARNED_HEADS = ("prototype", "class-mean", "ridge", "logistic", "kernel", "neighbours")
"""Heads a prior is learned for unless others are named."""

_FOLDS = 5
# about how many queries per task are kept for fitting: the fit gains little from more
_QUERIES_KEPT = 100
# ways that settings are chosen for; tasks of other sizes take the settings of the nearest size
_WAYS_FOR_SETTINGS = (5, 20, 75)
_TASKS_FOR_SETTINGS = 60
# cap on the loss of one query, in nats, so that no outlier dominates
_LOSS_CAP = 10
_SHRINKAGES = (1.0, 0.9, 0.7, 0.5)
_CENTRE_PRIORS = (0.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes of the auxiliary tasks, and how many there are of the small ones."""

    ways: Sequence[int]
    shots: Sequence[int]
    tasks: int

    def cells(self) -> Iterable[tuple[int, int, int]]:
        """Return ways, shots and number of tasks of each size.

        A large task has more queries and costs more, so there are fewer of them.
        """
        for n in self.ways:
            for k in self.shots:
                yield n, k, max(8, round(self.tasks * min(1.0, 8 / n)))


@checked
def learn_prior(
    z: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    sources: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    heads: Sequence[str] = LEARNED_HEADS,
    ways: Sequence[int] = (2, 5, 10, 20, 40, 75),
    shots: Sequence[int] = (1, 2, 3, 5, 10),
    tasks: int = 80,
    seed: int = 0,
) -> TaskPrior:
    """Learn a prior for the encoder of these embeddings from tasks of these classes.

    First the metric is chosen, on classes that it was not fitted on, and then the settings of the
    heads. After that calibrations, thresholds and expected accuracies are fitted on tasks of all
    sizes.

    Args:
        z: embeddings of training classes ``[N, D]``.
        labels: one per row.
        sources: name of the data that each row is from. A task is drawn from one source, or from
            all together where none has enough classes. ``None`` = one source.
        groups: rows with the same group never stand in both the support and the query of a task,
            see :class:`~quickstudy.fitting.draws.AuxiliaryClasses`.
        heads: names of the heads that get a calibration.
        ways: classes per task; sizes for which there are too few classes are left out.
        shots: support examples per class.
        tasks: how many tasks of every small size; of large sizes fewer are drawn.
        seed: of all random draws.

    Returns:
        The prior.

    Raises:
        TaskError: if there are too few classes or examples for any task, or the groups cannot be
            divided.
        ConfigError: if a size, a seed or the name of a head is not usable.
    """
    _check(heads, ways=ways, shots=shots, tasks=tasks, seed=seed)
    classes = AuxiliaryClasses(z, labels, sources=sources, groups=groups)
    with torch.no_grad():
        metric, centre_prior = _choose_metric(classes, seed)
        seen = metric(classes.z)
        # seed + 1: other tasks than those by which the metric was chosen
        chosen = {
            name: _choose_settings(classes, seen, name, centre_prior, ways, shots, seed + 1)
            for name in heads
        }
    sizes = _Sizes(ways, shots, tasks)
    answers: dict[str, list[Answers]] = {name: [] for name in heads}
    strangers: list[Strangers] = []
    most_ways = float(max((n for n in ways if n <= classes.n_classes), default=2))
    for n_way, k_shot, count in sizes.cells():
        # with too few classes or examples for that: no strangers, and fewer queries
        drawn = classes.episodes(
            n_way, k_shot, tasks=count, seed=seed + 2, n_strangers=20, z=seen, n_query=15
        ) or classes.episodes(n_way, k_shot, tasks=count, seed=seed + 2, z=seen)
        if drawn is None:
            continue
        for name in heads:
            best = chosen[name][nearest_size(n_way, k_shot, sorted(chosen[name]))]
            head = build_head(name, best, dim=metric.dim, centre_prior=centre_prior)
            answers[name].append(_answers(head, drawn.episode, most_ways))
        if drawn.strangers.shape[1]:
            strangers.append(_distances(drawn, centre_prior, most_ways))
    if not strangers:
        raise TaskError(
            f"{classes.n_classes} auxiliary classes give no task of {list(ways)} ways and "
            f"{list(shots)} shots "
            f"with queries and strangers{_of_groups(classes)}. Give more classes or examples, or "
            "smaller sizes."
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
    """Return the metric and the prior weight of the task's centre that do best on held-out classes.

    Each source is held out once, because a user's task is from none of these sources; of a single
    source, each half of its classes is. The score is the accuracy of the nearest prototype in tasks
    of 5 and 15 ways, 1 and 5 shots. The metric with the best settings is then fitted on all
    classes.
    """
    folds = classes.folds(seed)
    # a power below 1 is for the long tails of features after a ReLU, which are never negative
    powers = (1.0, 0.5) if bool((classes.z >= 0).all()) else (1.0,)
    scores: dict[tuple[MetricSettings, float], float] = {}
    y = torch.from_numpy(classes.y)
    for power in powers:
        for shrinkage in _SHRINKAGES:
            settings = MetricSettings(power, shrinkage)
            found: dict[float, list[float]] = {c: [] for c in _CENTRE_PRIORS}
            for train, held_out in folds:
                rows = classes.rows_of(train)
                seen = Metric.fit(classes.z[rows], y[rows], settings)(classes.z)
                for n_way, k_shot in ((5, 1), (5, 5), (15, 1), (15, 5)):
                    drawn = classes.episodes(
                        n_way, k_shot, tasks=100, seed=seed, classes=held_out, z=seen
                    )
                    if drawn is not None:
                        for c in _CENTRE_PRIORS:
                            found[c].append(_accuracy(drawn.episode, c))
            for c, values in found.items():
                if values:
                    scores[settings, c] = sum(values) / len(values)
    if not scores:
        raise TaskError(
            f"{classes.n_classes} auxiliary classes are too few to choose on held-out classes"
            f"{_of_groups(classes)}. Give at least ten, or use TaskPrior.plain."
        )
    best, centre_prior = max(scores, key=lambda key: scores[key])
    return Metric.fit(classes.z, y, best), centre_prior


def _check(
    heads: Sequence[str], *, ways: Sequence[int], shots: Sequence[int], tasks: int, seed: int
) -> None:
    check_at_least(1, tasks=tasks)
    check_at_least(0, seed=seed)
    for name, sizes, least in (("ways", ways, 2), ("shots", shots, 1)):
        for size in sizes:
            check_at_least(least, **{name: size})
    for name, given in (("heads", heads), ("ways", ways), ("shots", shots)):
        if not len(given):
            raise ConfigError(f"{name} is empty: a prior is learned from at least one. Name some.")
    for head in heads:
        if head not in HEADS:
            raise ConfigError(f"there is no head {head!r}. {nearest_names(head, HEADS)}")


def _of_groups(classes: AuxiliaryClasses) -> str:
    """Return what groups ask for, where there are any, for an error about too few tasks."""
    if not classes.grouped:
        return ""
    return (
        f", as their {len(set(classes.groups.tolist()))} groups cannot be divided (a class needs "
        "at least two, and none may be needed on both sides)"
    )


def _accuracy(episode: Episode, centre_prior: float) -> float:
    """Return the accuracy of the nearest prototype over all queries of all tasks."""
    head = CentredHead(PrototypeHead(distance="cosine"), prior=centre_prior)
    return float(_right(query_logits(head, episode), episode).mean())


def _right(logits: Tensor, episode: Episode) -> Tensor:
    """Return 1 for each query that is answered right, else 0 ``[T, Q]``."""
    return (logits.argmax(2) == episode.query.y).double()


def _choose_settings(
    classes: AuxiliaryClasses,
    seen: Tensor,
    name: str,
    centre_prior: float,
    ways: Sequence[int],
    shots: Sequence[int],
    seed: int,
) -> dict[tuple[int, int], Settings]:
    """Return the settings of a head with the least log loss on queries, for some sizes of tasks.

    Each task is scored at its own best temperature, because the temperature is fitted later.
    """
    grid = HEADS[name]
    if len(grid) == 1:
        return {(5, k): dict(grid[0]) for k in shots}
    chosen: dict[tuple[int, int], Settings] = {}
    for n in sorted(set(ways) & set(_WAYS_FOR_SETTINGS)):
        for k in shots:
            count = max(8, round(_TASKS_FOR_SETTINGS * min(1.0, 5 / n)))
            drawn = classes.episodes(n, k, tasks=count, seed=seed, z=seen)
            if drawn is None:
                continue
            losses = []
            for numbers in grid:
                head = build_head(name, numbers, dim=seen.shape[1], centre_prior=centre_prior)
                losses.append(_least_loss(head, drawn.episode))
            chosen[n, k] = dict(grid[min(range(len(grid)), key=losses.__getitem__)])
    return chosen or {(5, k): dict(grid[len(grid) // 2]) for k in shots}


def _least_loss(head: CentredHead, episode: Episode) -> float:
    """Return the mean log loss of the queries, in nats, each task at its best temperature."""
    logits, y = query_logits(head, episode), episode.query.y
    best = own_temperature(logits, y, torch.ones_like(y, dtype=torch.bool))
    return float(log_loss(logits, y, best).clamp(max=_LOSS_CAP).mean())


@torch.no_grad()
def _answers(head: CentredHead, episode: Episode, most_ways: float) -> Answers:
    """Return a head's answers in tasks of one size: its prior is fitted to them."""
    support, n_way = episode.support, episode.n_way
    held_out = held_out_logits(quick_twin(head), support, n_way=n_way, folds=_FOLDS)
    logits = query_logits(head, episode)
    right = _right(logits, episode)
    queries = right.shape[1]
    step = max(1, queries // _QUERIES_KEPT)
    evidence = gather_evidence(
        head.seen(support, n_way=n_way), held_out, n_way=n_way, most_ways=most_ways
    )
    # half an example is added to right and wrong answers: the logit of 0 or 1 would be infinite
    accuracy = (right.sum(1) + 0.5) / (queries + 1)
    return Answers(evidence, logits[:, ::step], episode.query.y[:, ::step], accuracy)


def _distances(drawn: AuxiliaryEpisodes, centre_prior: float, most_ways: float) -> Strangers:
    """Return the distances of queries and strangers from the supports, in tasks of one size."""
    head = CentredHead(PrototypeHead(distance="cosine"), prior=centre_prior)
    n_way, support, query = drawn.episode.n_way, drawn.episode.support, drawn.episode.query
    centre = head.adapt(support, n_way=n_way)["centre"]
    seen = head.seen(support, n_way=n_way)
    step = max(1, query.y.shape[1] // _QUERIES_KEPT)
    known, others = query.x[:, ::step] - centre, drawn.strangers - centre
    # only the size features are needed, and they do not depend on held-out logits
    no_logits = torch.zeros(*support.y.shape, n_way)
    size = gather_evidence(seen, no_logits, n_way=n_way, most_ways=most_ways).size
    return Strangers(
        size, distances(seen, known, n_way=n_way), distances(seen, others, n_way=n_way)
    )
