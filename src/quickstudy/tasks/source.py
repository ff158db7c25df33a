"""Sources, which make episodes: from a pool, with augmentation, or from several sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from quickstudy.core import ConfigError, Episode, EpisodeSpec, Examples, TaskError, keys, uniforms
from quickstudy.core.arguments import checked
from quickstudy.tasks.augment import AffineJitter
from quickstudy.tasks.pool import Pool
from quickstudy.tasks.sampling import EpisodeIndex, sample_index

__all__ = ["AugmentedSource", "MixtureSource", "PoolSource", "TaskSource"]

# one number per independent random decision; the samplers use smaller ones
_SUPPORT_JITTER, _QUERY_JITTER, _MIXTURE, _CLASS_JITTER = range(101, 105)


@runtime_checkable
class TaskSource(Protocol):
    """Makes episodes. Episode ``i`` of seed ``s`` is the same on every worker, device and run.

    Example::

        class Twice:
            name, split = "twice", "train"

            def episodes(self, spec, task_ids, *, seed):
                pool = Pool.build(torch.rand(4, 8), "aabb", name=self.name)
                return PoolSource(pool).episodes(spec, task_ids, seed=seed)

        assert isinstance(Twice(), TaskSource)
    """

    @property
    def name(self) -> str:
        """The data set, for reports."""

    @property
    def split(self) -> str:
        """The part of the data set: ``"train"``, ``"val"``, ``"test"`` or ``"all"``."""

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return the episodes named ``(seed, task_ids)`` as one batch.

        Args:
            spec: way, shot and queries.
            task_ids: ``T`` numbers.
            seed: names the list of episodes.

        Returns:
            An episode batch with ``T`` tasks.

        Raises:
            TaskError: if the data cannot give such an episode.
        """


def as_input(x: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], other numbers as float32."""
    return x.to(torch.float32).div_(255.0) if x.dtype == torch.uint8 else x.to(torch.float32)


@checked
@dataclass(frozen=True, slots=True)
class PoolSource:
    """Episodes from a pool in memory.

    Args:
        pool: the examples.
        group_aware: never put one group into both the support and the query of an episode.

    Example::

        source = PoolSource(load_pool("digits"))
        episode = source.episodes(EpisodeSpec(n_way=5, k_shot=1), [0, 1, 2], seed=0)
        episode.support.x  # [3, 5, 1, 28, 28]
        episode.query.y  # [3, 75]
    """

    pool: Pool
    group_aware: bool = False

    @property
    def name(self) -> str:
        """The data set."""
        return self.pool.name

    @property
    def split(self) -> str:
        """The part of it."""
        return self.pool.split

    def with_pool(self, pool: Pool) -> PoolSource:
        """Return the same episodes from another pool of the same rows, for example embeddings."""
        return PoolSource(pool, self.group_aware)

    def index(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> EpisodeIndex:
        """Return which rows make the episodes, without touching the examples."""
        return sample_index(self.pool, spec, task_ids, seed=seed, group_aware=self.group_aware)

    def gather(self, index: EpisodeIndex) -> Episode:
        """Return the episodes of an index: one gather from the pool."""
        x, device = self.pool.x, self.pool.x.device

        def examples(rows: np.ndarray, labels: np.ndarray) -> Examples:
            at, y = torch.from_numpy(rows).to(device), torch.from_numpy(labels).to(device)
            mask = at >= 0
            return Examples(as_input(x[at.clamp(min=0)]), y.clamp(min=0), mask)

        info = {
            "classes": torch.from_numpy(index.classes),
            "support_index": torch.from_numpy(index.support),
            "query_index": torch.from_numpy(index.query),
        }
        return Episode(
            examples(index.support, index.support_y),
            examples(index.query, index.query_y),
            index.classes.shape[1],
            info,
        )

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return the episodes named ``(seed, task_ids)`` as one batch."""
        return self.gather(self.index(spec, task_ids, seed=seed))


@checked
@dataclass(frozen=True, slots=True)
class AugmentedSource:
    """Episodes of warped images.

    Args:
        source: the episodes to augment.
        jitter: a random map for each image, as if another hand drew the same thing.
        class_jitter: a random map for each class of a task, shared by its support and queries. It
            makes a new class of each, so that no two tasks show exactly the same classes.

    Example::

        plain = PoolSource(load_pool("digits"))
        source = AugmentedSource(plain, AffineJitter(degrees=20))
        episode = source.episodes(EpisodeSpec(n_way=5, k_shot=1), [0], seed=0)
        episode.support.x  # [1, 5, 1, 28, 28]
    """

    source: TaskSource
    jitter: AffineJitter
    class_jitter: AffineJitter | None = None

    @property
    def name(self) -> str:
        """The data set."""
        return self.source.name

    @property
    def split(self) -> str:
        """The part of it."""
        return self.source.split

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return the augmented episodes named ``(seed, task_ids)``."""
        episode = self.source.episodes(spec, task_ids, seed=seed)
        ids = np.asarray(task_ids, dtype=np.int64)[:, None]  # [T, 1]

        def augment(examples: Examples, side: int) -> Examples:
            draws = keys(seed, side, ids, np.arange(examples.x.shape[1])).flatten()  # [T*N]
            outer = None
            if self.class_jitter is not None:
                of_class = keys(seed, _CLASS_JITTER, ids, examples.y.numpy()).flatten()
                outer = self.class_jitter.theta(of_class)
            x = self.jitter(examples.x.flatten(0, 1), draws, outer=outer)
            return Examples(x.view(examples.x.shape), examples.y, examples.mask)

        return Episode(
            augment(episode.support, _SUPPORT_JITTER),
            augment(episode.query, _QUERY_JITTER),
            episode.n_way,
            episode.info,
        )


@checked
class MixtureSource:
    """Each task comes from one of several sources, drawn with given weights.

    Args:
        sources: sources whose examples have one shape.
        weights: a non-negative number for each source, not all zero.
        name: for reports.

    Raises:
        ConfigError: if the weights do not fit the sources.

    Example::

        upright = PoolSource(load_pool("digits"))
        turned = PoolSource(load_pool("digits", rotations=True))
        source = MixtureSource([upright, turned], [0.25, 0.75])
        episode = source.episodes(EpisodeSpec(n_way=5, k_shot=1), range(8), seed=0)
        episode.info["source"]  # [8]
    """

    def __init__(
        self, sources: Sequence[TaskSource], weights: Sequence[float], *, name: str = "mixture"
    ) -> None:
        total = float(sum(weights))
        if (
            len(sources) != len(weights)
            or not sources
            or min(weights) < 0
            or not 0 < total < np.inf
        ):
            raise ConfigError(
                "a mixture needs one non-negative weight per source, not all zero; got "
                f"{len(sources)} sources and weights {list(weights)}."
            )
        self._sources = tuple(sources)
        self._edges = np.cumsum(np.asarray(weights, dtype=np.float64) / total)
        self._name = name
        self._depth = 1 + max(map(_depth, sources))
        # a mixture in a mixture needs draws of its own, or the outer choice would decide the inner
        self._stream = (_MIXTURE,) if self._depth == 1 else (_MIXTURE, self._depth)

    @property
    def name(self) -> str:
        """The mixture's name."""
        return self._name

    @property
    def depth(self) -> int:
        """How many mixtures lie within one another: 1 if no source is a mixture."""
        return self._depth

    @property
    def n_pools(self) -> int:
        """Number of sources with classes of their own, those of mixtures in the mixture counted."""
        return sum(_n_pools(source) for source in self._sources)

    @property
    def split(self) -> str:
        """The split of all sources, or their different splits joined by ``+``."""
        return "+".join(sorted({source.split for source in self._sources}))

    def episodes(self, spec: EpisodeSpec, task_ids: Sequence[int], *, seed: int) -> Episode:
        """Return the episodes named ``(seed, task_ids)``.

        ``info["source"]`` ``[T]`` numbers each task's source. If all sources name the classes of
        their episodes, ``info["classes"]`` ``[T, C]`` does too, each in the numbers of its own
        source, and ``info["pool"]`` ``[T]`` tells these sources apart, also those of a mixture in
        the mixture.
        """
        ids = np.asarray(task_ids, dtype=np.int64)
        # the last edge may be 0.999..., and a draw above it would name a source too many
        chosen = np.minimum(
            np.searchsorted(self._edges, uniforms(seed, *self._stream, ids), side="right"),
            len(self._sources) - 1,
        )
        parts: list[Episode] = []
        places: list[np.ndarray] = []
        pools: list[Tensor] = []
        first_pool = 0
        for number, source in enumerate(self._sources):
            where = np.flatnonzero(chosen == number)
            if len(where):
                parts.append(source.episodes(spec, ids[where].tolist(), seed=seed))
                places.append(where)
                here = parts[-1].info.get("pool", torch.zeros(len(where), dtype=torch.int64))
                pools.append(first_pool + here)
            first_pool += _n_pools(source)
        shapes = {tuple(part.support.x.shape[2:]) for part in parts}
        if len(shapes) > 1:
            raise TaskError(f"the sources of a mixture need one input shape; got {sorted(shapes)}.")
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        support = _concatenate([part.support for part in parts], back)
        query = _concatenate([part.query for part in parts], back)
        info = {"source": torch.from_numpy(chosen.astype(np.int64))}
        if all("classes" in part.info for part in parts):
            info["pool"] = torch.cat(pools)[back]
            info["classes"] = _joined_classes([part.info["classes"] for part in parts], back)
        return Episode(support, query, max(part.n_way for part in parts), info)


def _depth(source: TaskSource) -> int:
    """Return how many mixtures lie within one another in a source."""
    if isinstance(source, AugmentedSource):
        return _depth(source.source)
    return source.depth if isinstance(source, MixtureSource) else 0


def _n_pools(source: TaskSource) -> int:
    """Return how many sources with classes of their own are in a source."""
    if isinstance(source, AugmentedSource):
        return _n_pools(source.source)
    return source.n_pools if isinstance(source, MixtureSource) else 1


def _joined_classes(parts: list[Tensor], order: Tensor) -> Tensor:
    """Return the classes of all batches ``[T, C]``, with -1 for absent ones, in a given order."""
    width = max(part.shape[1] for part in parts)
    wide = [torch.nn.functional.pad(part, (0, width - part.shape[1]), value=-1) for part in parts]
    return torch.cat(wide)[order]


def _concatenate(parts: list[Examples], order: Tensor) -> Examples:
    """Return the tasks of all batches of examples, padded to one length, in a given order."""
    width = max(part.y.shape[1] for part in parts)

    def pad(value: Tensor) -> Tensor:
        missing = width - value.shape[1]
        return torch.cat([value, value.new_zeros(value.shape[0], missing, *value.shape[2:])], 1)

    x, y, mask = (
        torch.cat([pad(getattr(part, name)) for part in parts])[order]
        for name in ("x", "y", "mask")
    )
    return Examples(x, y, mask)
