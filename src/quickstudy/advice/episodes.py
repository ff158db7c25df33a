"""Quick episodes from a user's own examples, and the results of an approach on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from quickstudy.core import TaskError, uniforms
from quickstudy.core.rows import EpisodeRows, Ints, split_by_groups

__all__ = [
    "EpisodeResults",
    "Sample",
    "confused_pairs",
    "draw_episode",
    "eligible_classes",
    "take_sample",
]

Floats = npt.NDArray[np.float64]

_FEWEST_QUERIES = 2  # of a class, beside its support
# One number for each independent random decision: changing one changes the advice of every seed.
_CLASS_ORDER, _ROW_ORDER, _SAMPLED_ROWS, _SAMPLED_CLASSES, _GROUP_ORDER = 0, 1, 3, 4, 5
_DIVISIONS_TRIED = 64  # orders of the groups


@dataclass(frozen=True, slots=True)
class Sample:
    """The examples that episodes are drawn from.

    A content that was given with several labels is here once with each of them.

    Args:
        rows: place of each in the user's data ``[M]``.
        y: class of each, an index into ``classes`` ``[M]``.
        classes: the labels.
        content: equal numbers are equal content ``[M]``.
        group: rows of one group never stand in both the support and the query of an episode
            ``[M]``; or ``None``.
        divisions: of groups that span classes, by shot; filled when they are asked for.
    """

    rows: Ints
    y: Ints
    classes: tuple[str, ...]
    content: Ints
    group: Ints | None = None
    divisions: dict[int, tuple[Ints, Ints] | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def counts(self) -> Ints:
        """Examples of each class ``[C]``."""
        return np.bincount(self.y, minlength=len(self.classes))


@dataclass(slots=True)
class EpisodeResults:
    """The results of one approach in all episodes of one shot. Each episode is added to them.

    Args:
        right: how often each row of the sample was answered right ``[M]``.
        asked: how often each row was a query ``[M]``.
        confusion: queries of class ``i`` that were answered ``j`` ``[C, C]``.
        together: queries of class ``i`` in episodes that had class ``j``, so that ``j`` was a
            possible answer ``[C, C]``.
        scores: accuracy of each episode ``[E]``.
    """

    right: Floats
    asked: Floats
    confusion: Floats
    together: Floats
    scores: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, sample: Sample) -> EpisodeResults:
        """Return the results of no episode."""
        m, c = len(sample.y), len(sample.classes)
        return cls(np.zeros(m), np.zeros(m), np.zeros((c, c)), np.zeros((c, c)))

    def add(self, episode: EpisodeRows, answers: Ints) -> None:
        """Score the answers to the queries of one episode.

        Args:
            episode: its rows are places in the sample.
            answers: the label given to each query ``[Q]``.
        """
        right = answers == episode.query_y
        self.scores.append(float(right.mean()))
        self.right[episode.query] += right
        self.asked[episode.query] += 1
        true_class = episode.classes[episode.query_y]
        np.add.at(self.confusion, (true_class, episode.classes[answers]), 1)
        for label, c in enumerate(episode.classes):
            self.together[c, episode.classes] += int((episode.query_y == label).sum())

    def joined(self, later: EpisodeResults) -> EpisodeResults:
        """Return the results of these and of later episodes."""
        return EpisodeResults(
            self.right + later.right,
            self.asked + later.asked,
            self.confusion + later.confusion,
            self.together + later.together,
            [*self.scores, *later.scores],
        )

    @property
    def mean(self) -> float:
        """The mean accuracy over episodes."""
        return float(np.mean(self.scores))


def take_sample(
    contents: Sequence[str],
    labels: Sequence[str],
    *,
    groups: Sequence[object] | None = None,
    most: int = 2000,
    fewest: int = 20,
    per_class: int = 300,
    seed: int = 0,
) -> Sample:
    """Return at most ``most`` examples, the same number of each class if it has so many.

    Copies of an example under the same label are left out. Where ``most`` would leave fewer than
    ``fewest`` of each class, only some of the classes are taken, at random.

    Args:
        contents: hash of each example's content ``[N]``.
        labels: ``[N]``.
        groups: ``[N]``.
        most: examples in all.
        fewest: examples of a class, if it has them.
        per_class: at most so many of a class.
        seed: of the draw.

    Raises:
        TaskError: if there are fewer than two classes.
    """
    classes, y = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(classes) < 2:
        raise TaskError(
            f"all {len(labels)} examples are of the class {str(classes[0])!r}. Advice needs "
            "examples of at least two classes."
        )
    _, content = np.unique(np.asarray(contents, dtype=str), return_inverse=True)
    group = None
    if groups is not None:
        _, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    # one number for each pair of label and content
    _, first = np.unique(y * (content.max() + 1) + content, return_index=True)
    rows = np.sort(first)
    kept = np.arange(len(classes))
    if len(classes) * fewest > most:
        order = np.argsort(uniforms(seed, _SAMPLED_CLASSES, kept), kind="stable")
        kept = np.sort(order[: max(2, most // fewest)])
    limit = min(per_class, max(fewest, most // len(kept)))
    chosen = []
    for c in kept:
        members = rows[y[rows] == c]
        order = np.argsort(uniforms(seed, _SAMPLED_ROWS, members), kind="stable")
        chosen.append(np.sort(members[order[:limit]]))
    taken = np.concatenate(chosen).astype(np.int64)
    return Sample(
        taken,
        np.searchsorted(kept, y[taken]).astype(np.int64),
        tuple(str(classes[c]) for c in kept),
        content[taken].astype(np.int64),
        None if group is None else group[taken].astype(np.int64),
    )


def eligible_classes(sample: Sample, k_shot: int) -> Ints:
    """Return the classes that have ``k_shot`` support examples and two queries.

    :func:`draw_episode` can put every one of them into an episode, beside the others. With groups,
    the support has only the groups of its side. :func:`_place_groups` keeps the two sides of a
    class so even that the smaller one has at least half of the rows outside the class's largest
    group. That holds for groups of one class; where groups span classes, the classes are those
    that one division of all groups suits.
    """
    enough = sample.counts >= k_shot + _FEWEST_QUERIES
    if sample.group is not None:
        division = _division(sample, k_shot)
        if division is not None:
            return division[1]
        (of_class, _), sizes = np.unique((sample.y, sample.group), axis=1, return_counts=True)
        largest = np.zeros(len(enough), dtype=np.int64)
        np.maximum.at(largest, of_class, sizes)
        enough &= (sample.counts - largest + 1) // 2 >= k_shot
    return np.flatnonzero(enough)


def _division(sample: Sample, k_shot: int) -> tuple[Ints, Ints] | None:
    """Return the groups of a support side, and the classes that have enough on both sides.

    Of several random orders of the groups, and all places to cut them, it is the one that suits the
    most classes. ``None`` if no group spans classes: then every class is divided on its own.
    """
    if k_shot in sample.divisions:
        return sample.divisions[k_shot]
    found = None
    assert sample.group is not None
    names, group = np.unique(sample.group, return_inverse=True)
    sizes = np.zeros((len(sample.classes), len(names)), dtype=np.int64)  # [C, G]
    np.add.at(sizes, (sample.y, group), 1)
    if ((sizes > 0).sum(0) > 1).any():
        most = -1
        for attempt in range(_DIVISIONS_TRIED):
            order = np.argsort(uniforms(attempt, _GROUP_ORDER, names), kind="stable")
            before = sizes[:, order].cumsum(1)
            after = sizes.sum(1, keepdims=True) - before
            suits = (before >= k_shot) & (after >= _FEWEST_QUERIES)  # [C, G]
            cut = int(suits.sum(0).argmax())
            if suits[:, cut].sum() > most:
                most = int(suits[:, cut].sum())
                found = names[order[: cut + 1]], np.flatnonzero(suits[:, cut])
    sample.divisions[k_shot] = found
    return found


def draw_episode(
    sample: Sample, *, n_way: int, k_shot: int, n_query: int, seed: int, index: int
) -> EpisodeRows:
    """Return episode ``index``, with rows that are places in the sample.

    Support and query share no row, no content and no group. Episodes of the same index and
    different shots have the same order of classes and examples, so that accuracies at several shots
    can be compared in pairs: the support of a smaller shot is the beginning of that of a larger
    one, and the queries are taken from the other end.

    Args:
        sample: what the episode is drawn from.
        n_way: classes, at most.
        k_shot: support examples of a class.
        n_query: queries of a class, at most.
        seed: names the list of episodes.
        index: place in the list.

    Raises:
        TaskError: if fewer than two classes have enough examples.
    """
    able = eligible_classes(sample, k_shot)
    able = able[np.argsort(uniforms(seed, index, _CLASS_ORDER, able), kind="stable")]
    classes, support, query = _taken(sample, able, n_way, k_shot, n_query, (seed, index), None)
    division = None if sample.group is None else _division(sample, k_shot)
    if len(classes) < min(n_way, len(able)) and division is not None:
        # sides that were filled class by class leave out some; this division suits them all
        classes, support, query = _taken(
            sample, able, n_way, k_shot, n_query, (seed, index), division[0]
        )
    if len(classes) < 2:
        raise TaskError(
            f"fewer than two classes have {k_shot} examples beside {_FEWEST_QUERIES} to ask about"
            f"{' in other groups' if sample.group is not None else ''}. Give more examples."
        )
    episode = EpisodeRows.from_classes(classes, support, query)
    # a content with two labels may be support in one class and query in another
    new = ~np.isin(sample.content[episode.query], sample.content[episode.support])
    return replace(episode, query=episode.query[new], query_y=episode.query_y[new])


def _taken(
    sample: Sample,
    able: Ints,
    n_way: int,
    k_shot: int,
    n_query: int,
    name: tuple[int, int],
    side: Ints | None,
) -> tuple[list[int], list[Ints], list[Ints]]:
    """Return classes, supports and queries: the first ``n_way`` classes that have enough.

    Args:
        sample: what is drawn from.
        able: classes in the order in which they are tried.
        n_way: classes, at most.
        k_shot: support examples of a class.
        n_query: queries of a class, at most.
        name: seed and index of the episode.
        side: groups of the support; ``None`` = the sides are filled class by class.
    """
    classes: list[int] = []
    support: list[Ints] = []
    query: list[Ints] = []
    support_groups: set[int] = set() if side is None else set(side.tolist())
    query_groups: set[int] = set()
    for c in able:
        if len(classes) == n_way:
            break
        members = np.flatnonzero(sample.y == c)
        members = members[np.argsort(uniforms(*name, _ROW_ORDER, members), kind="stable")]
        chosen, rest = members[:k_shot], members[k_shot:]
        if sample.group is not None:
            groups = sample.group[members]
            if side is None:
                _place_groups(groups, support_groups, query_groups)
            chosen, rest = split_by_groups(members, groups, list(support_groups), k_shot)
        if len(chosen) == k_shot and len(rest):
            classes.append(int(c))
            support.append(chosen)
            query.append(rest[-n_query:])
    return classes, support, query


def _place_groups(groups: Ints, support_groups: set[int], query_groups: set[int]) -> None:
    """Place each new group of a class on the side, support or query, that has fewer of its rows.

    A group that an earlier class has placed stays where it is. The sides depend neither on the shot
    nor on the number of queries, as those of :mod:`quickstudy.tasks.sampling` do: only so can the
    episodes of several shots be nested.

    Args:
        groups: group of each row of the class, in the episode's order ``[N]``.
        support_groups: groups of the support so far; changed.
        query_groups: groups of the query so far; changed.
    """
    names, sizes = np.unique(groups, return_counts=True)
    size_of = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    in_support = sum(size for group, size in size_of.items() if group in support_groups)
    in_query = sum(size for group, size in size_of.items() if group in query_groups)
    for group in dict.fromkeys(groups.tolist()):  # each once, in the episode's order
        if group in support_groups or group in query_groups:
            continue
        if in_support <= in_query:
            support_groups.add(group)
            in_support += size_of[group]
        else:
            query_groups.add(group)
            in_query += size_of[group]


def confused_pairs(results: Mapping[int, EpisodeResults]) -> list[tuple[int, int, float]]:
    """Return pairs of classes and how often one is answered for the other, most often first.

    Only queries of episodes that had both classes count, over all shots. Pairs that were never
    confused are left out.

    Args:
        results: of one approach, by shot.
    """
    confusion = sum((r.confusion for r in results.values()), np.zeros(1))
    together = sum((r.together for r in results.values()), np.zeros(1))
    both = together + together.T
    rate = np.divide(confusion + confusion.T, both, out=np.zeros_like(both), where=both > 0)
    first, second = np.triu_indices(len(rate), 1)
    order = np.argsort(-rate[first, second], kind="stable")
    pairs = [(int(first[i]), int(second[i])) for i in order]
    return [(a, b, float(rate[a, b])) for a, b in pairs if rate[a, b] > 0]
