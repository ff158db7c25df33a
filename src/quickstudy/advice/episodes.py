"""Quick episodes from one labelled set: who is drawn, and what the answers were worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from quickstudy.core import TaskError, uniforms

__all__ = [
    "Outcome",
    "Sample",
    "Trial",
    "confused_pairs",
    "draw_trial",
    "eligible",
    "take_sample",
]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_FEWEST_QUERIES = 2  # of a class, beside its support
_CLASSES, _ROWS, _SIDES, _THIN, _THIN_CLASSES = range(5)  # what a random number is for


@dataclass(frozen=True, slots=True)
class Sample:
    """The examples that episodes are drawn from; a content stands once for each of its labels.

    Args:
        rows: where each stands in what was read ``[M]``.
        y: class of each, an index into ``classes`` ``[M]``.
        classes: the labels.
        content: equal numbers are equal content ``[M]``.
        group: rows of one group never stand on both sides of an episode ``[M]``; or ``None``.
    """

    rows: Ints
    y: Ints
    classes: tuple[str, ...]
    content: Ints
    group: Ints | None = None

    @property
    def counts(self) -> Ints:
        """Examples of each class ``[C]``."""
        return np.bincount(self.y, minlength=len(self.classes))


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode; support and queries share no row, no content and no group.

    Args:
        support: places in the sample ``[S]``.
        label: of each support, in ``[0, C)`` ``[S]``.
        query: places in the sample ``[Q]``.
        answer: of each query, in ``[0, C)`` ``[Q]``.
        classes: which class of the sample a label stands for ``[C]``.
    """

    support: Ints
    label: Ints
    query: Ints
    answer: Ints
    classes: Ints


@dataclass(slots=True)
class Outcome:
    """What the answers of one approach at one shot were worth.

    Args:
        scores: accuracy of each episode ``[E]``.
        right: how often each row of the sample was answered right ``[M]``.
        asked: how often it was a query ``[M]``.
        confused: queries of class ``i`` answered ``j`` ``[C, C]``.
        together: queries of class ``i`` in episodes that had class ``j`` ``[C, C]``.
    """

    right: Floats
    asked: Floats
    confused: Floats
    together: Floats
    scores: list[float] = field(default_factory=list)

    @classmethod
    def empty(cls, sample: Sample) -> Outcome:
        """Return an outcome of no episode."""
        m, c = len(sample.y), len(sample.classes)
        return cls(np.zeros(m), np.zeros(m), np.zeros((c, c)), np.zeros((c, c)))

    def add(self, trial: Trial, answers: Ints) -> None:
        """Count the answers to the queries of one episode, ``[Q]``."""
        right = answers == trial.answer
        self.scores.append(float(right.mean()))
        self.right[trial.query] += right
        self.asked[trial.query] += 1
        given = trial.classes[trial.answer]
        np.add.at(self.confused, (given, trial.classes[answers]), 1)
        for label, of_class in enumerate(trial.classes):
            self.together[of_class, trial.classes] += int((trial.answer == label).sum())

    def joined(self, later: Outcome) -> Outcome:
        """Return the outcome of both's episodes."""
        return Outcome(
            self.right + later.right,
            self.asked + later.asked,
            self.confused + later.confused,
            self.together + later.together,
            [*self.scores, *later.scores],
        )

    @property
    def mean(self) -> float:
        """The mean over episodes."""
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
    """Return at most ``most`` examples, the same number of each class as far as they go.

    Copies of an example under the same label are left out. Where ``most`` would leave fewer than
    ``fewest`` of each class, some of the classes are drawn.

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
    _, first = np.unique(y * (content.max() + 1) + content, return_index=True)
    rows = np.sort(first)
    kept = np.arange(len(classes))
    if len(classes) * fewest > most:
        order = np.argsort(uniforms(seed, _THIN_CLASSES, kept), kind="stable")
        kept = np.sort(order[: max(2, most // fewest)])
    limit = min(per_class, max(fewest, most // len(kept)))
    chosen = []
    for c in kept:
        members = rows[y[rows] == c]
        order = np.argsort(uniforms(seed, _THIN, members), kind="stable")
        chosen.append(np.sort(members[order[:limit]]))
    taken = np.concatenate(chosen).astype(np.int64)
    return Sample(
        taken,
        np.searchsorted(kept, y[taken]).astype(np.int64),
        tuple(str(classes[c]) for c in kept),
        content[taken].astype(np.int64),
        None if group is None else group[taken].astype(np.int64),
    )


def eligible(sample: Sample, k_shot: int) -> Ints:
    """Return the classes that have ``k_shot`` examples and two queries, also where groups part
    them: of two sides the smaller has at least half of what the largest group leaves."""
    enough = sample.counts >= k_shot + _FEWEST_QUERIES
    if sample.group is not None:
        (of, _), sizes = np.unique((sample.y, sample.group), axis=1, return_counts=True)
        largest = np.zeros(len(enough), dtype=np.int64)
        np.maximum.at(largest, of, sizes)
        enough &= (sample.counts - largest + 1) // 2 >= k_shot
    return np.flatnonzero(enough)


def draw_trial(
    sample: Sample, *, n_way: int, k_shot: int, n_query: int, seed: int, index: int
) -> Trial:
    """Return episode ``index``.

    At other shots the same index gives the same order of classes and examples: the support of a
    smaller shot is the beginning of that of a larger one, and the queries come from the end.

    Args:
        sample: what is drawn from.
        n_way: classes, at most.
        k_shot: support examples of a class.
        n_query: queries of a class, at most.
        seed: of all episodes.
        index: of this one.

    Raises:
        TaskError: if fewer than two classes have enough examples.
    """
    able = eligible(sample, k_shot)
    able = able[np.argsort(uniforms(seed, index, _CLASSES, able), kind="stable")]
    support: list[Ints] = []
    query: list[Ints] = []
    chosen: list[int] = []
    sides: dict[int, int] = {}
    for c in able:
        if len(chosen) == n_way:
            break
        members = np.flatnonzero(sample.y == c)
        members = members[np.argsort(uniforms(seed, index, _ROWS, members), kind="stable")]
        first, last = members[:k_shot], members[k_shot:]
        if sample.group is not None:
            left = _sides(sample.group[members], sides)
            first, last = members[left][:k_shot], members[~left]
        if len(first) < k_shot or not len(last):
            continue
        chosen.append(int(c))
        support.append(first)
        query.append(last[-n_query:])
    if len(chosen) < 2:
        raise TaskError(
            f"fewer than two classes have {k_shot} examples beside {_FEWEST_QUERIES} to ask about"
            f"{' in other groups' if sample.group is not None else ''}. Give more examples."
        )
    labels = np.arange(len(chosen))
    asked = np.concatenate(query)
    answer = labels.repeat([len(q) for q in query])
    shown = np.concatenate(support)
    # a content with two labels may stand in two classes
    fresh = ~np.isin(sample.content[asked], sample.content[shown])
    return Trial(
        shown, labels.repeat(k_shot), asked[fresh], answer[fresh], np.array(chosen, dtype=np.int64)
    )


def _sides(groups: Ints, sides: dict[int, int]) -> npt.NDArray[np.bool_]:
    """Return which members may be support; groups keep the side they have, new ones go to the side
    with fewer rows."""
    names, sizes = np.unique(groups, return_counts=True)
    size = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    held = [0, 0]
    for group in size:
        if group in sides:
            held[sides[group]] += size[group]
    for group in dict.fromkeys(groups.tolist()):  # in the episode's order of rows
        if group not in sides:
            sides[group] = int(held[0] > held[1])
            held[sides[group]] += size[group]
    return np.array([sides[group] == 0 for group in groups.tolist()])


def confused_pairs(outcomes: Mapping[int, Outcome]) -> list[tuple[int, int, float]]:
    """Return pairs of classes and how often one is answered for the other, worst first, over all
    shots.

    Args:
        outcomes: of one approach by shot.
    """
    confused = sum((o.confused for o in outcomes.values()), np.zeros(1))
    together = sum((o.together for o in outcomes.values()), np.zeros(1))
    both = together + together.T
    rate = np.divide(confused + confused.T, both, out=np.zeros_like(both), where=both > 0)
    first, second = np.triu_indices(len(rate), 1)
    order = np.argsort(-rate[first, second], kind="stable")
    pairs = [(int(first[i]), int(second[i])) for i in order]
    return [(a, b, float(rate[a, b])) for a, b in pairs if rate[a, b] > 0]
