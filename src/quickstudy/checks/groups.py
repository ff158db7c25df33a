"""Do examples of one group (drawer, track, patient) in support and query make queries easier?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickstudy.checks.alike import standardised
from quickstudy.checks.findings import (
    MOST_PAIRS,
    Finding,
    Outcome,
    Pair,
    Passed,
    Skipped,
)
from quickstudy.core import EpisodeSpec, TaskError
from quickstudy.evaluation.evaluate import evaluate
from quickstudy.learners.floor import NearestNeighbour
from quickstudy.tasks import Pool, PoolSource, TaskSource

__all__ = ["ALIKE", "GroupLikeness", "check_groups", "group_likeness"]

ALIKE = 0.6
"""From this probability on, that a pair of one group is more alike than a pair of two groups,
groups leak; 0.5 is chance."""

_STANDARD_ERRORS_ABOVE_CHANCE = 4
_MOST_CLASSES_COMPARED = 100
_MOST_EPISODES_SCORED = 100  # by the nearest neighbour on pixels

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupLikeness:
    """Whether examples of one group are more alike than examples of one class are anyway.

    Args:
        probability: that a pair of one group is more alike than a pair of two groups, all of one
            class; 0.5 is chance.
        standard_error: of the probability, over groups.
        groups: how many were compared.
        within: median cosine of pairs of one group.
        between: median cosine of pairs of two groups.
    """

    probability: float
    standard_error: float
    groups: int
    within: float
    between: float

    @property
    def leaks(self) -> bool:
        """Whether a group in support and query makes queries easier."""
        sure = self.probability - _STANDARD_ERRORS_ABOVE_CHANCE * self.standard_error > 0.5
        return sure and self.probability > ALIKE


def group_likeness(pool: Pool) -> GroupLikeness | None:
    """Compare pairs of one group with pairs of two groups, inside each class.

    Only groups with two examples of a class or more are compared. A group with one example, as a
    drawer of characters has, cannot make a query easy: the query and its support of the same class
    are then of two groups.

    Args:
        pool: must have groups.

    Returns:
        What was measured on the first 100 classes; ``None`` if fewer than two groups could be
        compared.
    """
    assert pool.groups is not None
    groups, counts, offsets = pool.groups.numpy(), pool.counts, pool.offsets
    wins: list[float] = []
    within: list[Floats] = []
    between: list[Floats] = []
    for c in range(min(pool.n_classes, _MOST_CLASSES_COMPARED)):
        rows = slice(int(offsets[c]), int(offsets[c] + counts[c]))
        z = standardised(pool.x[rows])
        cosine = (z @ z.T).double().numpy()  # [n, n]
        same = groups[rows, None] == groups[None, rows]
        np.fill_diagonal(cosine, np.nan)  # an example is no pair with itself
        for group in np.unique(groups[rows]):
            member = groups[rows] == group
            near = cosine[np.ix_(member, member)]
            near, far = near[~np.isnan(near)], cosine[np.ix_(member, ~member)].ravel()
            if len(near) and len(far):
                # Mann-Whitney: for each pair inside, how many pairs across are less alike
                order = np.searchsorted(np.sort(far), near)
                wins.append(float((order / len(far)).mean()))
                within.append(near)
        other = cosine[~same]
        between.append(other[~np.isnan(other)])
    if len(wins) < 2:
        return None
    return GroupLikeness(
        probability=float(np.mean(wins)),
        standard_error=float(np.std(wins, ddof=1) / np.sqrt(len(wins))),
        groups=len(wins),
        within=float(np.median(np.concatenate(within))),
        between=float(np.median(np.concatenate(between))),
    )


def check_groups(
    source: TaskSource, spec: EpisodeSpec, *, episodes: int, seed: int
) -> Iterator[Outcome]:
    """Yield one outcome: is a group in support and query, and does that make queries easier?"""
    if not isinstance(source, PoolSource) or source.pool.groups is None:
        yield Skipped("shared-groups", "the data has no groups (drawer, track, patient)")
        return
    pool, groups = source.pool, source.pool.groups.numpy()
    index = source.index(spec, range(episodes), seed=seed)
    shared, first = 0, None
    for t, (s, q) in enumerate(zip(index.support, index.query, strict=True)):
        s, q = s[s >= 0], q[q >= 0]  # -1 is padding
        both = np.isin(groups[q], groups[s])
        shared += bool(both.any())
        if first is None and both.any():
            first = t
    if not shared:
        yield Passed("shared-groups", f"{episodes:,} episodes: no group is support and query")
        return
    likeness = group_likeness(pool)
    if source.group_aware:
        yield Finding(
            "shared-groups",
            "fault",
            f"In {shared:,} of {episodes:,} episodes a group is support and query, although the "
            "source says that it keeps groups apart.",
            {"episodes": episodes, "shared": shared, "first": first},
            "Divide the groups between support and query before examples are drawn.",
        )
        return
    if likeness is None or not likeness.leaks:
        how = "no class has two examples of one group"
        if likeness is not None:
            how = (
                f"a pair of one group is more alike in {100 * likeness.probability:.0f} % of cases"
            )
        fact = f"groups are in support and query, but do not make queries easier: {how}"
        yield Passed("shared-groups", fact)
        return
    yield _leak(source, spec, likeness, shared, episodes, seed)


def _leak(
    source: PoolSource,
    spec: EpisodeSpec,
    likeness: GroupLikeness,
    shared: int,
    episodes: int,
    seed: int,
) -> Finding:
    """Return the fault, with the accuracy of pixels with and without groups kept apart."""
    evidence: dict[str, object] = {
        "episodes": episodes,
        "shared": shared,
        "pairs_of_one_group_more_alike": likeness.probability,
        "standard_error": likeness.standard_error,
        "median_cosine_one_group": likeness.within,
        "median_cosine_two_groups": likeness.between,
    }
    text = (
        f"In {shared:,} of {episodes:,} episodes a group is support and query, and two pictures of "
        f"one group are more alike than two of the class in {100 * likeness.probability:.0f} % of "
        f"cases (median cosine {likeness.within:.2f} and {likeness.between:.2f})."
    )
    scored = min(_MOST_EPISODES_SCORED, episodes)
    mixed = evaluate(NearestNeighbour(), source, spec, episodes=scored, seed=seed)
    try:
        aware = PoolSource(source.pool, group_aware=True)
        apart = evaluate(NearestNeighbour(), aware, spec, episodes=scored, seed=seed)
    except TaskError:
        pass  # the groups are too large to be kept apart: the likeness is evidence enough
    else:
        evidence |= {"floor_mixed": mixed.mean, "floor_apart": apart.mean}
        text += (
            f" Pixel nearest neighbour: {100 * mixed.mean:.1f} % with groups mixed, "
            f"{100 * apart.mean:.1f} % with groups apart."
        )
    remedy = "Keep groups apart: evaluate with groups=True, or PoolSource(pool, group_aware=True)."
    return Finding("shared-groups", "fault", text, evidence, remedy, _examples(source, spec, seed))


def _examples(source: PoolSource, spec: EpisodeSpec, seed: int) -> tuple[Pair, ...]:
    """Return queries beside the support example of their class and group."""
    assert source.pool.groups is not None
    index = source.index(spec, range(_MOST_EPISODES_SCORED), seed=seed)
    groups, y, pool = source.pool.groups.numpy(), source.pool.y.numpy(), source.pool
    pairs: list[Pair] = []
    for support, query in zip(index.support, index.query, strict=True):
        for q in query[query >= 0]:
            twins = [s for s in support[support >= 0] if groups[s] == groups[q] and y[s] == y[q]]
            if twins and len(pairs) < MOST_PAIRS:
                place = f"{pool.class_names[int(y[q])]}, group {groups[q]}, row"
                captions = (f"support: {place} {twins[0]}", f"query: {place} {q}")
                pairs.append(Pair(pool.x[int(twins[0])], pool.x[int(q)], captions))
                break
    return tuple(pairs)
