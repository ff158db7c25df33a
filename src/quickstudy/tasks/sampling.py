"""Which rows of a pool make which episode: N-way K-shot, variable way and shot, group-aware.

Everything here is a pure function of ``(pool, spec, task_id, seed)`` built on counter-based hashing
(:mod:`quickstudy.core.seeding`), vectorised over tasks, so sampling costs microseconds per episode
and an episode is the same for ever. Labels and the order of examples are shuffled per episode: a
learner cannot cheat by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickstudy.core import EpisodeSpec, TaskError, keys, uniforms
from quickstudy.tasks.pool import Pool

__all__ = ["EpisodeIndex", "sample_index"]

Ints = npt.NDArray[np.int64]

# one number per independent random decision; changing one changes every published episode list
_CLASSES, _ROWS, _SUPPORT_ORDER, _QUERY_ORDER, _WAY, _SIZE, _IMBALANCE, _GROUPS = range(1, 9)
_LAST = np.uint64(2**64 - 1)
_CHUNK = 4_000_000  # hashes held at once: keeps 10,000 episodes over 1,692 classes below 100 MB
_MAX_SUPPORT = 500  # Meta-Dataset's cap on the size of a support set


@dataclass(frozen=True, slots=True)
class EpisodeIndex:
    """Rows and labels of ``T`` episodes; -1 is padding.

    Args:
        support: rows of the pool ``[T, S]``.
        support_y: labels ``[T, S]``.
        query: rows of the pool ``[T, Q]``.
        query_y: labels ``[T, Q]``.
        classes: class index in the pool of each label ``[T, C]``.
    """

    support: Ints
    support_y: Ints
    query: Ints
    query_y: Ints
    classes: Ints


def sample_index(
    pool: Pool,
    spec: EpisodeSpec,
    task_ids: Sequence[int],
    *,
    seed: int,
    group_aware: bool = False,
) -> EpisodeIndex:
    """Return the rows of the episodes ``(seed, task_ids)``.

    With a fixed way and shot: ``n_way`` classes without replacement, ``k_shot + n_query`` different
    rows of each. With a range: Meta-Dataset's procedure (Triantafillou et al. 2020, section 3.2),
    see :func:`_imbalanced_shots`.

    Args:
        pool: the examples.
        spec: way, shot and queries.
        task_ids: which episodes, ``T`` numbers of any size and order.
        seed: names the list of episodes.
        group_aware: never let a group (one drawer, one video track) stand in the support and the
            query of an episode; needs ``pool.groups``.

    Raises:
        TaskError: if there are too few classes, a class has too few examples, or groups cannot be
            kept apart.
    """
    ids = np.asarray(task_ids, dtype=np.int64)
    _check(pool, spec, group_aware)
    if len(ids) == 0:
        raise TaskError("no task ids were given; ask for at least one episode.")
    if group_aware:
        return _stack([_grouped(pool, spec, int(task), seed) for task in ids], spec)
    if spec.variable:
        return _stack([_variable(pool, spec, int(task), seed) for task in ids], spec)
    chunk = max(1, _CHUNK // max(pool.n_classes, spec.max_way * int(pool.counts.max())))
    parts = [_fixed(pool, spec, ids[i : i + chunk], seed) for i in range(0, len(ids), chunk)]
    return EpisodeIndex(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("support", "support_y", "query", "query_y", "classes")
        )
    )


def _check(pool: Pool, spec: EpisodeSpec, group_aware: bool) -> None:
    if spec.min_way < 2:
        raise TaskError("a task with one class has only one answer; n_way must be at least 2.")
    if pool.n_classes < spec.max_way:
        raise TaskError(
            f"{pool.name} ({pool.split}) has {pool.n_classes} class(es); {spec.max_way}-way tasks "
            f"need {spec.max_way}. Lower n_way or add classes."
        )
    counts = pool.counts
    low_shot = spec.min_shot
    # with ranges the queries shrink to half the class (Meta-Dataset, equation 1)
    need = low_shot + (1 if spec.variable else spec.n_query)
    if (short := int(counts.argmin())) >= 0 and counts[short] < need:
        raise TaskError(
            f"class {pool.class_names[short]!r} of {pool.name} has {counts[short]} examples; "
            f"k_shot={low_shot} + n_query={need - low_shot} needs {need}. Lower "
            + ("k_shot or n_query" if counts[short] > low_shot else "k_shot")
            + (" or drop the class." if int(counts.max()) >= need else ".")
        )
    if group_aware and pool.groups is None:
        raise TaskError(
            f"{pool.name} has no groups (drawer, track), so episodes cannot be group-aware. "
            "Name a group column when the data is read, or leave group_aware off."
        )
    if group_aware and spec.variable:
        raise TaskError("group-aware episodes need a fixed way and shot; got a range.")


def _classes(pool: Pool, n_way: int, ids: Ints, seed: int) -> Ints:
    """Draw ``n_way`` classes per task; the order of the keys is the random labelling.  [T] -> [T,
    C]"""
    draws = keys(seed, _CLASSES, ids[:, None], np.arange(pool.n_classes))  # [T, n_classes]
    if n_way < pool.n_classes:
        chosen = np.argpartition(draws, n_way - 1, axis=1)[:, :n_way]
        order = np.argsort(np.take_along_axis(draws, chosen, 1), axis=1)
        return np.take_along_axis(chosen, order, 1)
    return np.argsort(draws, axis=1)


def _rows(pool: Pool, classes: Ints, take: int, ids: Ints, seed: int) -> Ints:
    """Draw ``take`` different rows of every class.  [T, C] -> [T, C, take]"""
    slots = np.arange(int(pool.counts.max()))
    draws = keys(seed, _ROWS, ids[:, None, None], classes[..., None], slots)  # [T, C, max_count]
    draws[slots >= pool.counts[classes][..., None]] = _LAST
    if take < len(slots):
        first = np.argpartition(draws, take - 1, axis=2)[..., :take]
        order = np.argsort(np.take_along_axis(draws, first, 2), axis=2)
        first = np.take_along_axis(first, order, 2)
    else:
        first = np.argsort(draws, axis=2)
    return pool.offsets[classes][..., None] + first


def _shuffle(rows: Ints, labels: Ints, ids: Ints, seed: int, stream: int) -> tuple[Ints, Ints]:
    """Put the examples of each task in a random order.  [T, N] -> [T, N]"""
    order = np.argsort(keys(seed, stream, ids[:, None], np.arange(rows.shape[1])), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(labels, order, 1)


def _fixed(pool: Pool, spec: EpisodeSpec, ids: Ints, seed: int) -> EpisodeIndex:
    n_way, k_shot, n_query = spec.max_way, spec.max_shot, spec.n_query
    classes = _classes(pool, n_way, ids, seed)  # [T, C]
    rows = _rows(pool, classes, k_shot + n_query, ids, seed)  # [T, C, K+q]
    labels = np.broadcast_to(np.arange(n_way)[None, :, None], rows.shape)
    return _assemble(rows[..., :k_shot], rows[..., k_shot:], labels, classes, ids, seed)


def _assemble(
    support: Ints, query: Ints, labels: Ints, classes: Ints, ids: Ints, seed: int
) -> EpisodeIndex:
    tasks, k_shot, n_query = len(ids), support.shape[2], query.shape[2]
    s = support.reshape(tasks, -1), labels[..., :k_shot].reshape(tasks, -1)
    q = query.reshape(tasks, -1), labels[..., :n_query].reshape(tasks, -1)
    return EpisodeIndex(
        *_shuffle(*s, ids, seed, _SUPPORT_ORDER), *_shuffle(*q, ids, seed, _QUERY_ORDER), classes
    )


def _variable(pool: Pool, spec: EpisodeSpec, task: int, seed: int) -> EpisodeIndex:
    spread = spec.max_way - spec.min_way
    n_way = spec.min_way + int(float(uniforms(seed, _WAY, task)) * (spread + 1))
    ids = np.array([task])
    classes = _classes(pool, n_way, ids, seed)  # [1, C]
    sizes = pool.counts[classes[0]]
    # equation 1; in small classes the lowest shot comes before the queries
    n_query = int(min(spec.n_query, (sizes // 2).min(), (sizes - spec.min_shot).min()))
    shots = (
        _imbalanced_shots(sizes, n_query, spec.k_shot, task, seed)
        if isinstance(spec.k_shot, tuple)
        else np.minimum(spec.k_shot, sizes - n_query)
    )
    rows = _rows(pool, classes, int((shots + n_query).max()), ids, seed)[0]  # [C, max]
    support = np.concatenate([rows[c, :k] for c, k in enumerate(shots)])
    query = np.concatenate([rows[c, k : k + n_query] for c, k in enumerate(shots)])
    support_y = np.repeat(np.arange(n_way), shots)
    query_y = np.repeat(np.arange(n_way), n_query)
    return EpisodeIndex(
        *_shuffle(support[None], support_y[None], ids, seed, _SUPPORT_ORDER),
        *_shuffle(query[None], query_y[None], ids, seed, _QUERY_ORDER),
        classes,
    )


def _imbalanced_shots(
    sizes: Ints, n_query: int, k_shot: tuple[int, int], task: int, seed: int
) -> Ints:
    """Return the shot of each class by Meta-Dataset's procedure (section 3.2), kept inside
    ``k_shot``.

    The size of the support set is ``min(500, sum_c ceil(beta * min(k_max, size_c - q)))`` with
    ``beta`` uniform in (0, 1] (equation 2, where the paper's ``k_max`` is 100); it is shared out in
    proportion to ``exp(alpha_c) * size_c`` with ``alpha_c`` uniform in [log 0.5, log 2) (equation
    3).
    """
    low, high = k_shot
    n_way = len(sizes)
    beta = 1.0 - float(uniforms(seed, _SIZE, task))
    total = min(_MAX_SUPPORT, int(np.ceil(beta * np.minimum(high, sizes - n_query)).sum()))
    alpha = np.log(0.5) + uniforms(seed, _IMBALANCE, task, np.arange(n_way)) * np.log(4.0)
    share = np.exp(alpha) * sizes
    shots = (share / share.sum() * max(0, total - n_way)).astype(np.int64) + 1
    return np.asarray(np.minimum(np.clip(shots, low, high), sizes - n_query))


def _grouped(pool: Pool, spec: EpisodeSpec, task: int, seed: int) -> EpisodeIndex:
    """One episode in which no group stands on both sides.

    All groups of the task's classes are put in a random order and cut in two: the support is drawn
    from the first part, the query from the second. Groups that belong to one class only (video
    tracks) are cut class by class; groups that span classes (drawers) are cut once for the whole
    episode.
    """
    assert pool.groups is not None
    ids = np.array([task])
    classes = _classes(pool, spec.max_way, ids, seed)
    groups, counts, offsets = pool.groups.numpy(), pool.counts, pool.offsets
    rows = [np.arange(offsets[c], offsets[c] + counts[c]) for c in classes[0]]
    tables = [np.unique(groups[r], return_counts=True) for r in rows]
    seen = np.concatenate([table[0] for table in tables])
    shared = len(np.unique(seen)) < len(seen)
    batches = [list(range(len(rows)))] if shared else [[label] for label in range(len(rows))]
    first: set[int] = set()
    for batch in batches:
        first |= _cut_groups(
            pool, [classes[0][b] for b in batch], [tables[b] for b in batch], spec, task, seed
        )
    support, query = [], []
    for label, class_rows in enumerate(rows):
        draw = keys(seed, _ROWS, task, int(classes[0][label]), np.arange(len(class_rows)))
        ordered = class_rows[np.argsort(draw)]
        side = np.isin(groups[ordered], list(first))
        support.append(ordered[side][: spec.max_shot])
        query.append(ordered[~side][: spec.n_query])
    s, q = np.stack(support)[None], np.stack(query)[None]  # [1, C, K], [1, C, q]
    labels = np.broadcast_to(
        np.arange(spec.max_way)[None, :, None], (1, spec.max_way, max(s.shape[2], q.shape[2]))
    )
    return _assemble(s, q, labels, classes, ids, seed)


def _cut_groups(
    pool: Pool,
    classes: list[int],
    tables: list[tuple[Ints, Ints]],
    spec: EpisodeSpec,
    task: int,
    seed: int,
) -> set[int]:
    """Return the groups of the support side so that each class has enough rows on both sides."""
    names = np.unique(np.concatenate([table[0] for table in tables]))
    sizes = np.zeros((len(tables), len(names)), dtype=np.int64)  # [classes, groups]
    for c, (group, count) in enumerate(tables):
        sizes[c, np.searchsorted(names, group)] = count
    for attempt in range(64):
        order = np.argsort(keys(seed, _GROUPS, task, attempt, names))
        before = sizes[:, order].cumsum(1)  # rows in the first g+1 groups
        after = sizes.sum(1, keepdims=True) - before
        fits = ((before >= spec.max_shot) & (after >= spec.n_query)).all(0)
        if fits.any():
            cuts = np.flatnonzero(fits)
            want = len(names) * spec.max_shot / (spec.max_shot + spec.n_query)
            cut = int(cuts[np.abs(cuts + 1 - want).argmin()])
            return {int(g) for g in names[order[: cut + 1]]}
    worst = int(sizes.sum(1).argmin())
    raise TaskError(
        f"{pool.name}: the {int((sizes[worst] > 0).sum())} groups of class "
        f"{pool.class_names[classes[worst]]!r} cannot be split into {spec.max_shot} support and "
        f"{spec.n_query} query examples without sharing a group. Lower k_shot or n_query."
    )


def _stack(parts: list[EpisodeIndex], spec: EpisodeSpec) -> EpisodeIndex:
    """Pad single episodes to one size with -1 and stack them."""

    def pad(name: str, width: int) -> Ints:
        out = np.full((len(parts), width), -1, dtype=np.int64)
        for t, part in enumerate(parts):
            row = getattr(part, name)[0]
            out[t, : len(row)] = row
        return out

    n_support = max(part.support.shape[1] for part in parts)
    n_query = max(part.query.shape[1] for part in parts)
    return EpisodeIndex(
        pad("support", n_support),
        pad("support_y", n_support),
        pad("query", n_query),
        pad("query_y", n_query),
        pad("classes", spec.max_way),
    )
