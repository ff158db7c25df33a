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

# draws of a task, and orders of its groups, before they count as impossible
_DRAWS_TRIED, _GROUP_ORDERS_TRIED = 64, 16


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
        groups: rows with the same group (frames of one film, say) never stand in both the support
            and the query of an episode, nor in the support and among the strangers; ``None`` =
            every row is a group of its own.

    Raises:
        TaskError: if the lengths differ, or the embeddings are no table of finite numbers.
    """

    def __init__(
        self,
        z: npt.ArrayLike,
        labels: npt.ArrayLike,
        *,
        sources: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> None:
        self.z = _embeddings(z)
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
        self.grouped = int(self.groups.max(initial=-1)) + 1 < n  # some rows share a group
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
        """Draw tasks of one size; ``None`` if there are too few classes with enough examples, in
        enough groups.

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
        usable = np.array([c for c in wanted if self._divides(c, k_shot, n_query)])
        # strangers need a class that is not in the task
        sources = self._large_enough(usable, n_way + (1 if n_strangers else 0))
        if not sources:
            return None
        drawn: list[EpisodeRows] = []
        strangers: list[Ints] = []
        for _ in range(tasks):
            source = sources[rng.integers(len(sources))]
            for _ in range(_DRAWS_TRIED):
                order = rng.permutation(source)
                sides = self._sides(order[:n_way], k_shot, n_query, rng)
                if sides is None:
                    continue
                others = self.rows_of(order[n_way:]) if n_strangers else np.zeros(0, np.int64)
                shown = self.groups[np.concatenate(sides[0])]
                others = others[~np.isin(self.groups[others], shown)]
                if len(others) or not n_strangers:
                    break
            else:
                return None  # the groups tie these classes together too closely
            drawn.append(EpisodeRows.from_classes(order[:n_way], *sides))
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

    def _divides(self, label: int, k_shot: int, n_query: int) -> bool:
        """Return whether the groups of a class can be divided into a support and a query."""
        rows = self._rows[label]
        most = len(rows) - n_query  # rows that the groups of the support may have
        if not self.grouped or most < k_shot:
            return most >= k_shot
        # bit n is set if some of the groups have n rows together
        sums = 1
        for size in np.bincount(self.groups[rows]).tolist():
            sums |= sums << size if size else 0
        return (sums & ((1 << (most + 1)) - 1)) >> k_shot > 0

    def _sides(
        self, classes: Ints, k_shot: int, n_query: int, rng: np.random.Generator
    ) -> tuple[list[Ints], list[Ints]] | None:
        """Draw support and query rows of each class, without a group on both sides.

        The support is any ``k_shot`` rows of a class, and its query comes from other groups. Where
        too few rows are left then, or a group spans classes and would stand on both sides, the
        groups are divided first.

        Returns:
            Rows of the support and of the query, class by class; ``None`` if no way was found.
        """
        rows = [rng.permutation(self._rows[c]) for c in classes]
        firsts = [self.groups[of_class[:k_shot]] for of_class in rows]
        for attempt in range(_GROUP_ORDERS_TRIED):
            sides = []
            for of_class, chosen in zip(rows, firsts, strict=True):
                groups = self.groups[of_class]
                sides.append(split_by_groups(of_class, groups, chosen, k_shot))
            support, query = [s for s, _ in sides], [q[:n_query] for _, q in sides]
            enough = all(len(s) == k_shot for s in support) and all(
                len(q) == n_query for q in query
            )
            shared = np.isin(
                self.groups[np.concatenate(query)], self.groups[np.concatenate(support)]
            )
            if enough and not shared.any():
                return support, query
            if attempt == 0 and not self.grouped:
                return None
            firsts = [self._support_groups(rows, k_shot, n_query, rng)] * len(rows)
        return None

    def _support_groups(
        self, rows: list[Ints], k_shot: int, n_query: int, rng: np.random.Generator
    ) -> Ints:
        """Return groups for the support, in a random order until every class has enough of them.

        A group is passed over if one of its classes needs it for the query. The groups found may
        not be enough for every class.

        Args:
            rows: the rows of each class of an episode.
            k_shot: support examples per class.
            n_query: query examples per class.
            rng: draws the order.
        """
        names = np.unique(np.concatenate([self.groups[r] for r in rows]))
        sizes = np.stack(
            [
                np.bincount(np.searchsorted(names, self.groups[r]), minlength=len(names))
                for r in rows
            ]
        )  # [C, G]
        spare = sizes.sum(1) - n_query  # rows of each class that the support's groups may have
        taken, chosen = np.zeros_like(spare), []
        for g in rng.permutation(len(names)):
            wanted = ((sizes[:, g] > 0) & (taken < k_shot)).any()
            if wanted and (taken + sizes[:, g] <= spare).all():
                taken += sizes[:, g]
                chosen.append(g)
        return names[chosen]


def _embeddings(z: npt.ArrayLike) -> Tensor:
    """Return embeddings ``[N, D]`` as float32."""
    try:
        found = torch.as_tensor(np.asarray(z).astype(np.float32, copy=False))
    except (TypeError, ValueError) as error:
        raise TaskError(f"embeddings must be numbers [N, D]; got {type(z).__name__}.") from error
    if found.ndim != 2 or not found.numel():
        raise TaskError(f"embeddings must be [N, D]; got {list(found.shape)}.")
    broken = (~found.isfinite().all(1)).nonzero()[:, 0].tolist()
    if broken:
        raise TaskError(
            f"the embedding in row {broken[0]} holds NaN or infinity (as do {len(broken) - 1} more "
            "rows). Leave them out, or look for an encoder that overflows."
        )
    return found
