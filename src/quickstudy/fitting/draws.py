"""Tasks made of labelled embeddings, to learn from or to be scored on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quickstudy.core import Examples, TaskError

__all__ = ["AuxiliaryClasses", "Draw"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Draw:
    """``T`` tasks of the same size.

    Args:
        support: examples ``[T, S, D]``, class by class.
        query: examples ``[T, Q, D]`` of the same classes.
        strangers: embeddings ``[T, U, D]`` of other classes of the same source; ``U`` may be 0.
        n_way: ``C``.
        k_shot: support examples per class.
    """

    support: Examples
    query: Examples
    strangers: Tensor
    n_way: int
    k_shot: int


class AuxiliaryClasses:
    """Classes of one or more sources; a task is drawn from one source, or from all together where
    none has classes enough.

    Args:
        z: embeddings ``[N, D]``.
        labels: one name or number per row.
        sources: one name per row: what data the row is from; ``None`` = one source.
        groups: rows of a class with the same group never stand on both sides of a task (frames of
            one film, say); ``None`` = every row is its own.

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
        """Return two halves of the classes ``[C/2]``, every source divided evenly."""
        order = np.random.default_rng(seed).permutation(self.n_classes)
        order = order[np.argsort(self.source_of[order], kind="stable")]
        return np.sort(order[::2]), np.sort(order[1::2])

    def folds(self, seed: int) -> list[tuple[Ints, Ints]]:
        """Return classes to learn from and classes to be scored on: every source in turn stands for
        the one to come, or with one source each half of its classes."""
        every = np.arange(self.n_classes)
        sources = np.unique(self.source_of)
        if len(sources) == 1:
            one, other = self.halves(seed)
            return [(one, other), (other, one)]
        held = [self.source_of == source for source in sources]
        return [(every[~chosen], every[chosen]) for chosen in held]

    def rows_of(self, classes: Ints) -> Ints:
        """Return the rows of these classes."""
        return np.concatenate([self._rows[c] for c in classes])

    def draw(
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
    ) -> Draw | None:
        """Return tasks of one size, or ``None`` if no source has enough classes and examples.

        Args:
            n_way: classes per task.
            k_shot: support examples per class.
            tasks: how many.
            seed: of the draw.
            n_query: query examples per class.
            n_strangers: examples of classes that are not in the task.
            classes: only from these; ``None`` = all.
            z: embeddings to take instead ``[N, D']``.
        """
        rng = np.random.default_rng([seed, n_way, k_shot])
        z = self.z if z is None else z
        pool = np.arange(self.n_classes) if classes is None else classes
        pool = np.array([c for c in pool if len(self._rows[c]) >= k_shot + n_query])
        sources = self._large_enough(pool, n_way + (1 if n_strangers else 0))
        if not sources:
            return None
        parts: list[tuple[Ints, Ints, Ints]] = []
        for _ in range(tasks):
            mine = sources[rng.integers(len(sources))]
            order = rng.permutation(mine)
            sides = [self._sides(c, k_shot, n_query, rng) for c in order[:n_way]]
            others = self.rows_of(order[n_way:]) if n_strangers else np.zeros(0, np.int64)
            parts.append(
                (
                    np.concatenate([s for s, _ in sides]),
                    np.concatenate([q for _, q in sides]),
                    rng.choice(others, n_strangers) if n_strangers else others,
                )
            )
        support, query, strangers = (np.stack(side) for side in zip(*parts, strict=True))
        y = torch.arange(n_way)
        return Draw(
            Examples.full(z[support], y.repeat_interleave(k_shot).expand(tasks, -1)),
            Examples.full(z[query], y.repeat_interleave(n_query).expand(tasks, -1)),
            z[strangers],
            n_way,
            k_shot,
        )

    def _large_enough(self, pool: Ints, n_way: int) -> list[Ints]:
        if not len(pool):
            return []
        found = [pool[self.source_of[pool] == s] for s in np.unique(self.source_of)]
        large = [classes for classes in found if len(classes) >= n_way]
        # no source is large enough: tasks of all of them together, if that is enough
        return large or [c for c in [pool] if len(c) >= n_way]

    def _sides(
        self, label: int, k_shot: int, n_query: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Return rows of support and query; groups stay on one side where there are enough."""
        rows = rng.permutation(self._rows[label])
        support = rows[:k_shot]
        rest = rows[k_shot:]
        apart = rest[~np.isin(self.groups[rest], self.groups[support])]
        query = apart if len(apart) >= n_query else rest
        return support, query[:n_query]
