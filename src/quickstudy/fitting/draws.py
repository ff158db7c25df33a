"""Auxiliary episodes: drawn from labelled embeddings, and answered by a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import Episode, Examples, TaskError
from quickstudy.core.rows import EpisodeIndex, EpisodeRows, Ints, split_by_groups

__all__ = ["AuxiliaryClasses", "AuxiliaryEpisodes"]


@dataclass(frozen=True, slots=True)
class AuxiliaryEpisodes:
    """``T`` tasks of the same size, and examples that belong to none of their classes.

    Args:
        episode: support ``[T, C*K, D]`` and query ``[T, C*q, D]``, each class by class.
        strangers: embeddings ``[T, U, D]`` of other classes of the same source; ``U`` may be 0.
    """

    episode: Episode
    strangers: Tensor


class AuxiliaryClasses:
    """Labelled embeddings that auxiliary episodes are drawn from.

    The classes of an episode come from one source. Only where no source has enough classes do they
    come from all sources together.

    Args:
        z: embeddings ``[N, D]``.
        labels: one name or number per row.
        sources: one name per row: what data the row is from; ``None`` = one source.
        groups: rows of a class with the same group (frames of one film, say) never stand in both
            the support and the query of an episode, unless the class has too few rows in other
            groups; ``None`` = every row is a group of its own.

    Raises:
        TaskError: if the lengths differ.
    """

    def __init__(
        self,
        z: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        sources: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> None:
        self.z = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        n = len(self.z)
        given = {
            "labels": np.asarray(labels).astype(str),
            "sources": np.full(n, "") if sources is None else np.asarray(sources).astype(str),
            "groups": np.arange(n) if groups is None else np.asarray(groups),
        }
        for name, value in given.items():
            if value.shape != (n,):
                raise TaskError(f"{name} must be [{n}], one per row of z; got {value.shape}.")
        # the same label in two sources is two classes
        pairs = np.stack([given["sources"], given["labels"]], 1)
        classes, index = np.unique(pairs, axis=0, return_inverse=True)
        self.y: Ints = index.reshape(-1).astype(np.int64)
        self.groups: Ints = np.unique(given["groups"], return_inverse=True)[1].reshape(-1)
        self.source_of: Ints = np.unique(classes[:, 0], return_inverse=True)[1].reshape(-1)
        self.names = [f"{s}/{c}" if s else str(c) for s, c in classes]
        self._rows = [np.flatnonzero(self.y == c) for c in range(len(classes))]

    @property
    def n_classes(self) -> int:
        """The number of classes, over all sources."""
        return len(self._rows)

    def halves(self, seed: int) -> tuple[Ints, Ints]:
        """Return two random halves of the classes ``[C/2]``, every source divided evenly."""
        order = np.random.default_rng(seed).permutation(self.n_classes)
        order = order[np.argsort(self.source_of[order], kind="stable")]
        return np.sort(order[::2]), np.sort(order[1::2])

    def folds(self, seed: int) -> list[tuple[Ints, Ints]]:
        """Return pairs of classes to learn from and classes to be scored on.

        Every source is held out once, as a stand-in for the unknown source of a task to come. If
        there is only one source, each half of its classes is held out once.
        """
        every = np.arange(self.n_classes)
        sources = np.unique(self.source_of)
        if len(sources) == 1:
            first, second = self.halves(seed)
            return [(first, second), (second, first)]
        held_out = [self.source_of == source for source in sources]
        return [(every[~chosen], every[chosen]) for chosen in held_out]

    def rows_of(self, classes: Ints) -> Ints:
        """Return the rows of these classes."""
        return np.concatenate([self._rows[c] for c in classes])

    def episodes(
        self,
        n_way: int,
        k_shot: int,
        *,
        tasks: int,
        seed: int,
        n_query: int = 10,
        n_strangers: int = 0,
        classes: Ints | None = None,
        z: Tensor | None = None,
    ) -> AuxiliaryEpisodes | None:
        """Draw tasks of one size; ``None`` if there are too few classes with enough examples.

        Args:
            n_way: classes per task.
            k_shot: support examples per class.
            tasks: how many tasks ``T``.
            seed: names the list of tasks.
            n_query: query examples per class.
            n_strangers: examples of other classes, for each task.
            classes: numbers of the classes to draw from; ``None`` = all.
            z: other embeddings of the same rows, in place of the own ones ``[N, D']``.
        """
        # one random stream for all tasks of a size: task 3 depends on the tasks before it, unlike
        # the episodes of a source
        rng = np.random.default_rng([seed, n_way, k_shot])
        z = self.z if z is None else z
        wanted = np.arange(self.n_classes) if classes is None else classes
        usable = np.array([c for c in wanted if len(self._rows[c]) >= k_shot + n_query])
        # strangers need a class that is not in the task
        sources = self._large_enough(usable, n_way + (1 if n_strangers else 0))
        if not sources:
            return None
        drawn: list[EpisodeRows] = []
        strangers: list[Ints] = []
        for _ in range(tasks):
            source = sources[rng.integers(len(sources))]
            order = rng.permutation(source)
            sides = [self._split(c, k_shot, n_query, rng) for c in order[:n_way]]
            support, query = zip(*sides, strict=True)
            drawn.append(EpisodeRows.from_classes(order[:n_way], support, query))
            others = self.rows_of(order[n_way:]) if n_strangers else np.zeros(0, np.int64)
            strangers.append(rng.choice(others, n_strangers) if n_strangers else others)
        index = EpisodeIndex.stack(drawn, n_way=n_way)
        episode = Episode(
            Examples.full(z[index.support], torch.from_numpy(index.support_y)),
            Examples.full(z[index.query], torch.from_numpy(index.query_y)),
            n_way,
        )
        return AuxiliaryEpisodes(episode, z[np.stack(strangers)])

    def _large_enough(self, classes: Ints, n_way: int) -> list[Ints]:
        """Return, of the given classes, those of each source that has at least ``n_way``.

        If no source has so many but all of them together have, their classes count as one source.
        """
        if not len(classes):
            return []
        by_source = [classes[self.source_of[classes] == s] for s in np.unique(self.source_of)]
        large = [of_source for of_source in by_source if len(of_source) >= n_way]
        if not large and len(classes) >= n_way:
            return [classes]
        return large

    def _split(
        self, label: int, k_shot: int, n_query: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Draw the support and the query of one class.

        The support is any ``k_shot`` rows, so a group is never too small to be drawn. Other
        samplers choose the groups of the support first, and refuse classes that have too few.
        """
        rows = rng.permutation(self._rows[label])
        groups = self.groups[rows]
        support, apart = split_by_groups(rows, groups, groups[:k_shot], k_shot)
        # a prior is learned from many classes: one with too few groups is better than none
        query = apart if len(apart) >= n_query else rows[k_shot:]
        return support, query[:n_query]
