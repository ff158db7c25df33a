"""Learning a prior from auxiliary tasks: tasks drawn from classes that are not the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Episode, Examples, TaskError, nearest_names
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least
from quickstudy.core.rows import Ints
from quickstudy.fitting.calibration import Answers, Ratios, fit_head_prior, fit_open_set
from quickstudy.fitting.draws import AuxiliaryClasses
from quickstudy.fitting.evidence import log_loss, own_temperature
from quickstudy.fitting.familiar import KnownSource
from quickstudy.fitting.heads import HEADS, Settings, build_head, quick_twin
from quickstudy.fitting.novelty import Neighbourhood
from quickstudy.fitting.one_shot import ByWays
from quickstudy.fitting.prior import TaskPrior
from quickstudy.fitting.space import Metric, MetricSettings, Spread
from quickstudy.learners.base import query_logits
from quickstudy.learners.heads import CentredHead, PrototypeHead, held_out_logits

__all__ = ["LEARNED_HEADS", "learn_prior"]

LEARNED_HEADS = ("prototype", "class-mean", "ridge", "logistic", "kernel", "neighbours")
"""Heads a prior is learned for unless others are named."""

_FOLDS = 5
_ONE_SOURCE = "its classes"  # name of a source that has none
# about how many queries per task are kept for fitting: the fit gains little from more
_QUERIES_KEPT = 100
# sizes of tasks that settings are chosen on: one setting of a head serves all sizes, so that what
# is said of an answer does not jump from one size to the next
_SIZES_FOR_SETTINGS = ((5, 1), (5, 5), (20, 5))
_TASKS_FOR_SETTINGS = 20
_MOST_WAYS_OF_SEVERAL_SHOTS = 40
# cap on the loss of one query, in nats, so that no outlier dominates
_LOSS_CAP = 10
_SHRINKAGES = (1.0, 0.9, 0.7, 0.5)
_CENTRE_PRIORS = (0.0, 2.0, 5.0, 10.0)
# a source of fewer classes is not recognised again: its middle is not known well enough
_LEAST_CLASSES_KNOWN = 10
_TASKS_KNOWN = 300
_WAYS_KNOWN = (2, 5, 10, 20)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes of the auxiliary tasks, and how many there are of the small ones."""

    ways: Sequence[int]
    shots: Sequence[int]
    tasks: int

    def cells(self) -> Iterable[tuple[int, int, int]]:
        """Return ways, shots and number of tasks of each size.

        A large task has more queries and costs more, so there are fewer of them, and the largest
        have one shot only.
        """
        for n in self.ways:
            for k in self.shots:
                if k == 1 or n <= _MOST_WAYS_OF_SEVERAL_SHOTS:
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
    shots: Sequence[int] = (1, 2, 5),
    tasks: int = 40,
    seed: int = 0,
) -> TaskPrior:
    """Learn a prior for the encoder of these embeddings from tasks of these classes.

    First the metric is chosen, on sources that it was not fitted on, and then the settings of the
    heads. After that it is noted, for each source and size, how right the heads are and how far
    known queries lie: what may be said of a task that cannot judge itself.

    The more kinds of sources, the more such a task may be like one of them; of a task that is like
    none only what holds in all is said.

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
            name: _choose_settings(classes, seen, name, centre_prior, seed + 1) for name in heads
        }
    # one shot is always among them: there nothing but the prior speaks
    sizes = _Sizes(ways, sorted({1, *shots}), tasks)
    built = {
        name: build_head(name, best, dim=metric.dim, centre_prior=centre_prior)
        for name, best in chosen.items()
    }
    answers: dict[str, list[Answers]] = {name: [] for name in heads}
    ratios: list[Ratios] = []
    for source, of_source in _sources(classes).items():
        for n_way, k_shot, count in sizes.cells():
            # fewer queries where classes are small
            for n_query in (15, 10, 5):
                drawn = classes.episodes(
                    n_way,
                    k_shot,
                    tasks=count,
                    seed=seed + 2,
                    n_query=n_query,
                    classes=of_source,
                )
                if drawn is not None:
                    break
            if drawn is None:
                continue
            ratios.append(_ratios(source, drawn.episode, k_shot))
            episode = _mapped(metric, drawn.episode)
            for name in heads:
                answers[name].append(_answers(built[name], episode, source, k_shot))
    if not any(c.shots == 1 for c in ratios):
        raise TaskError(
            f"{classes.n_classes} auxiliary classes give no task of {list(ways)} ways with "
            f"queries{_of_groups(classes)}. Give more classes or examples, or smaller sizes."
        )
    fitted = {n: fit_head_prior(answers[n], {(5, 1): chosen[n]}) for n in heads}
    about = {
        "classes": classes.n_classes,
        "sources": sorted({n.split("/")[0] for n in classes.names if "/" in n}),
        "rows": len(classes.z),
        "seed": seed,
        "ways": list(ways),
        "shots": list(sizes.shots),
    }
    known = tuple(_known(classes, seed))
    return TaskPrior(metric, centre_prior, fitted, fit_open_set(ratios), known, about)


def _sources(classes: AuxiliaryClasses) -> dict[str, Ints]:
    """Return the classes of each source by its name.

    Where no source has two classes, all are one source.
    """
    found: dict[str, Ints] = {}
    for number in np.unique(classes.source_of):
        members = np.flatnonzero(classes.source_of == number)
        name = classes.names[members[0]].split("/")[0] if "/" in classes.names[members[0]] else ""
        if len(members) > 1:
            found[name or _ONE_SOURCE] = members
    return found or {_ONE_SOURCE: np.arange(classes.n_classes)}


def _mapped(metric: Metric, episode: Episode) -> Episode:
    """Return the episode in a metric."""
    support, query = (
        Examples(metric(side.x), side.y, side.mask) for side in (episode.support, episode.query)
    )
    return Episode(support, query, episode.n_way)


def _known(classes: AuxiliaryClasses, seed: int) -> Iterable[KnownSource]:
    """Yield where each source lies, judged by its own classes, each left out of the middle."""
    z = torch.nn.functional.normalize(classes.z, dim=1)
    rng = np.random.default_rng([seed, 3])
    for name, members in _sources(classes).items():
        if len(members) < _LEAST_CLASSES_KNOWN:
            continue
        rows = [classes.rows_of(np.array([c])) for c in members]
        means = torch.stack([z[r].mean(0) for r in rows])  # [C, D]
        found: dict[int, list[float]] = {}
        for ways in (n for n in _WAYS_KNOWN if 2 * n <= len(members)):
            for _ in range(_TASKS_KNOWN):
                shown = rng.permutation(len(members))[:ways]
                rest = (means.sum(0) - means[shown].sum(0)) / (len(members) - ways)
                centre = torch.nn.functional.normalize(rest, dim=0)
                picked = z[np.array([rng.choice(rows[c]) for c in shown])]
                found.setdefault(ways, []).append(float((picked @ centre).mean()))
        sizes = tuple(found)
        yield KnownSource(
            name,
            torch.nn.functional.normalize(means.mean(0), dim=0),
            ByWays(sizes, tuple(float(np.mean(v)) for v in found.values())),
            ByWays(sizes, tuple(float(np.std(v)) for v in found.values())),
        )


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
    y = torch.from_numpy(classes.y)
    found: dict[tuple[MetricSettings, float], list[float]] = {}
    for power in powers:
        for train, held_out in folds:
            rows = classes.rows_of(train)
            spread = Spread.of(classes.z[rows], y[rows], MetricSettings(power))
            for shrinkage in _SHRINKAGES:
                settings = MetricSettings(power, shrinkage)
                seen = spread.metric(settings)(classes.z)
                for n_way, k_shot in ((5, 1), (5, 5), (15, 1), (15, 5)):
                    drawn = classes.episodes(
                        n_way, k_shot, tasks=50, seed=seed, classes=held_out, z=seen
                    )
                    if drawn is not None:
                        for c in _CENTRE_PRIORS:
                            accuracy = _accuracy(drawn.episode, c)
                            found.setdefault((settings, c), []).append(accuracy)
    scores = {key: sum(values) / len(values) for key, values in found.items()}
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
    classes: AuxiliaryClasses, seen: Tensor, name: str, centre_prior: float, seed: int
) -> Settings:
    """Return the settings of a head with the least log loss on queries, sources weighing the same.

    Each task is scored at its own best temperature, because the temperature is fitted later.
    """
    grid = HEADS[name]
    if len(grid) == 1:
        return dict(grid[0])
    losses = np.zeros(len(grid))
    for of_source in _sources(classes).values():
        for n, k in _SIZES_FOR_SETTINGS:
            tasks = max(8, round(_TASKS_FOR_SETTINGS * min(1.0, 5 / n)))
            drawn = classes.episodes(n, k, tasks=tasks, seed=seed, classes=of_source, z=seen)
            if drawn is None:
                continue
            for i, numbers in enumerate(grid):
                head = build_head(name, numbers, dim=seen.shape[1], centre_prior=centre_prior)
                losses[i] += _least_loss(head, drawn.episode)
    return dict(grid[int(losses.argmin()) if losses.any() else len(grid) // 2])


def _least_loss(head: CentredHead, episode: Episode) -> float:
    """Return the mean log loss of the queries, in nats, each task at its best temperature."""
    logits, y = query_logits(head, episode), episode.query.y
    best = own_temperature(logits, y, torch.ones_like(y, dtype=torch.bool))
    return float(log_loss(logits, y, best).clamp(max=_LOSS_CAP).mean())


@torch.no_grad()
def _answers(head: CentredHead, episode: Episode, source: str, shots: int) -> Answers:
    """Return a head's answers in tasks of one source and size."""
    support, n_way = episode.support, episode.n_way
    logits = query_logits(head, episode)
    right = _right(logits, episode)
    temperature = torch.ones(len(logits), dtype=torch.float64)
    if shots > 1:
        held_out = held_out_logits(quick_twin(head), support, n_way=n_way, folds=_FOLDS)
        temperature = own_temperature(held_out, support.y, support.mask)
    step = max(1, right.shape[1] // _QUERIES_KEPT)
    y = episode.query.y
    return Answers(
        source, n_way, shots, logits[:, ::step], y[:, ::step], right.mean(1), temperature
    )


def _ratios(source: str, episode: Episode, shots: int) -> Ratios:
    """Return the distances of queries in tasks of one source and size."""
    support, query = episode.support, episode.query
    step = max(1, query.y.shape[1] // _QUERIES_KEPT)
    found = []
    for x, y, asked in zip(support.x, support.y, query.x[:, ::step], strict=True):
        near = Neighbourhood.of(x, y)
        found.append(near(asked) / near.unit)
    return Ratios(source, episode.n_way, shots, torch.stack(found))
