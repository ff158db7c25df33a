"""Leak check: does anything of the support stand in the query as well?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickstudy.core import EpisodeSpec
from quickstudy.tasks import PoolSource

__all__ = ["LeakReport", "check_leaks", "content_ids"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What the leak check found over some episodes.

    Args:
        episodes: how many were looked at.
        shared_rows: episodes where one row of the pool is support and query.
        shared_content: episodes where byte-identical examples are support and query.
        shared_groups: episodes where one group (drawer, track) is support and query, or ``None``
            without groups.
        duplicates: rows of the pool that repeat another row byte for byte.
        conflicting: rows, originals included, with a byte-identical row of another class.
    """

    episodes: int
    shared_rows: int
    shared_content: int
    shared_groups: int | None
    duplicates: int
    conflicting: int

    @property
    def clean(self) -> bool:
        """Whether no row and no content stands on both sides."""
        return self.shared_rows == 0 and self.shared_content == 0


def content_ids(source: PoolSource) -> Ints:
    """Return a number for each row ``[M]``: equal for byte-identical examples."""
    rows = source.pool.x.flatten(1).contiguous().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.int64)


def check_leaks(
    source: PoolSource, spec: EpisodeSpec, *, episodes: int = 10_000, seed: int = 0
) -> LeakReport:
    """Look for support examples among the queries: by row, by content and by group.

    Args:
        source: a pool of examples.
        spec: way, shot and queries.
        episodes: how many to look at.
        seed: names the list of episodes.

    Returns:
        Counts of episodes that leak.
    """
    pool = source.pool
    contents = content_ids(source)
    index = source.index(spec, range(episodes), seed=seed)
    groups = None
    if pool.groups is not None:
        groups = _shared(index.support, index.query, pool.groups.numpy())
    _, inverse, counts = np.unique(contents, return_inverse=True, return_counts=True)
    y = pool.y.numpy()
    low = np.full(len(counts), np.iinfo(np.int64).max)
    high = np.full(len(counts), -1)
    np.minimum.at(low, inverse, y)
    np.maximum.at(high, inverse, y)
    return LeakReport(
        episodes=episodes,
        shared_rows=_shared(index.support, index.query, np.arange(len(y))),
        shared_content=_shared(index.support, index.query, contents),
        shared_groups=groups,
        duplicates=int((counts - 1).sum()),
        conflicting=int(((counts > 1) & (low != high))[inverse].sum()),
    )


def _shared(support: Ints, query: Ints, ids: Ints) -> int:
    """Count the episodes in which an id stands on both sides; -1 is padding."""
    count = 0
    for s, q in zip(support, query, strict=True):
        count += bool(np.isin(ids[s[s >= 0]], ids[q[q >= 0]]).any())
    return count
