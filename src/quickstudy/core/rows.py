"""Which rows of a data set make an episode: the record of it, and the steps all samplers share.

Episodes are drawn in three places: from the pool of a source (:mod:`quickstudy.tasks.sampling`),
from the training classes of a prior (:mod:`quickstudy.fitting.draws`) and from a user's own
examples (:mod:`quickstudy.advice.episodes`). Each place has random numbers of its own, because an
episode of a given seed must stay the same for ever. Nothing in this file is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["EpisodeIndex", "EpisodeRows", "Ints", "split_by_groups"]

Ints = npt.NDArray[np.int64]

_PADDING = -1


@dataclass(frozen=True, slots=True)
class EpisodeRows:
    """The rows and labels of one episode.

    Args:
        support: rows of the data set ``[S]``.
        support_y: label of each, in ``[0, C)`` ``[S]``.
        query: rows of the data set ``[Q]``.
        query_y: label of each, in ``[0, C)`` ``[Q]``.
        classes: the class of the data set that each label stands for ``[C]``.
    """

    support: Ints
    support_y: Ints
    query: Ints
    query_y: Ints
    classes: Ints

    @classmethod
    def from_classes(
        cls, classes: npt.ArrayLike, support: Sequence[Ints], query: Sequence[Ints]
    ) -> EpisodeRows:
        """Return an episode class by class: the class in place ``i`` gets the label ``i``.

        Args:
            classes: numbers of the classes in the data set ``[C]``.
            support: support rows of each class; classes may have different numbers of them.
            query: query rows of each class, likewise.
        """
        labels = np.arange(len(support))
        return cls(
            np.concatenate(support),
            labels.repeat([len(rows) for rows in support]),
            np.concatenate(query),
            labels.repeat([len(rows) for rows in query]),
            np.asarray(classes, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class EpisodeIndex:
    """Rows and labels of ``T`` episodes; -1 is padding.

    Args:
        support: rows of the data set ``[T, S]``.
        support_y: labels ``[T, S]``.
        query: rows of the data set ``[T, Q]``.
        query_y: labels ``[T, Q]``.
        classes: the class of the data set that each label stands for ``[T, C]``.
    """

    support: Ints
    support_y: Ints
    query: Ints
    query_y: Ints
    classes: Ints

    @classmethod
    def stack(cls, episodes: Sequence[EpisodeRows], *, n_way: int) -> EpisodeIndex:
        """Return several episodes as one, each padded with -1 to the largest.

        Args:
            episodes: ``T`` episodes.
            n_way: columns of ``classes``, at least as many as any of the episodes has classes.
        """
        return cls(
            _padded([episode.support for episode in episodes]),
            _padded([episode.support_y for episode in episodes]),
            _padded([episode.query for episode in episodes]),
            _padded([episode.query_y for episode in episodes]),
            _padded([episode.classes for episode in episodes], width=n_way),
        )


def _padded(lines: Sequence[Ints], *, width: int = 0) -> Ints:
    """Return lines of any lengths below each other ``[T, longest]``."""
    table = np.full((len(lines), max(width, *map(len, lines))), _PADDING, dtype=np.int64)
    for place, line in enumerate(lines):
        table[place, : len(line)] = line
    return table


def split_by_groups(
    rows: Ints, groups: Ints, support_groups: npt.ArrayLike, k_shot: int
) -> tuple[Ints, Ints]:
    """Split the rows of one class so that no group stands in both the support and the query.

    Args:
        rows: rows of the class, in the order in which they are to be taken ``[N]``.
        groups: the group of each row ``[N]``.
        support_groups: the groups that the support may use; all others are for the query.
        k_shot: support examples wanted.

    Returns:
        The first ``k_shot`` rows of the support's groups (fewer if these hold fewer), and all rows
        of the other groups, from which the query is taken. Further rows of the support's groups are
        not used.
    """
    in_support = np.isin(groups, support_groups)
    return rows[in_support][:k_shot], rows[~in_support]
