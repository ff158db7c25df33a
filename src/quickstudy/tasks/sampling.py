"""Which rows of a pool make which episode: N-way K-shot, variable way and shot, group-aware.

Everything here is a pure function of ``(pool, spec, task_id, seed)``. The random numbers come from
counter-based hashing (:mod:`quickstudy.core.seeding`), so that an episode is the same for ever and
can be made without the episodes before it. They are computed for many tasks at once: an episode
costs microseconds. Labels and the order of examples are shuffled in each episode, so that a learner
cannot use an example's position.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quickstudy.core import EpisodeSpec, TaskError, keys, uniforms
from quickstudy.core.rows import EpisodeIndex, EpisodeRows, Ints, split_by_groups
from quickstudy.tasks.pool import Pool

__all__ = ["EpisodeIndex", "sample_index"]

# One number for each independent random decision. Changing one changes every published episode
# list.
_CLASSES, _ROWS, _SUPPORT_ORDER, _QUERY_ORDER, _WAY, _SIZE, _IMBALANCE, _GROUPS = range(1, 9)
_LARGEST_KEY = np.uint64(2**64 - 1)
_KEYS_AT_ONCE = 4_000_000  # keeps 10,000 episodes over 1,692 classes below 100 MB
_MAX_SUPPORT = 500  # Meta-Dataset's cap on the size of a support set
_GROUP_ORDERS_TRIED = 64  # random orders of the groups, before they count as impossible to split


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
    if group_aware or spec.variable:
        draw = _grouped if group_aware else _variable
        return EpisodeIndex.stack(
            [draw(pool, spec, int(task), seed) for task in ids], n_way=spec.max_way
        )
    keys_per_task = max(pool.n_classes, spec.max_way * int(pool.counts.max()))
    step = max(1, _KEYS_AT_ONCE // keys_per_task)
    parts = [_fixed(pool, spec, ids[i : i + step], seed) for i in range(0, len(ids), step)]
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
    # with ranges, fewer queries are drawn from small classes (Meta-Dataset, equation 1)
    need = low_shot + (1 if spec.variable else spec.n_query)
    short = int(counts.argmin())
    if counts[short] < need:
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
    """Draw ``n_way`` classes for each task, in a random order: their place is their label.

    [T] -> [T, C]
    """
    draws = keys(seed, _CLASSES, ids[:, None], np.arange(pool.n_classes))  # [T, n_classes]
    if n_way < pool.n_classes:
        # only the chosen ones are sorted: pools may have thousands of classes
        chosen = np.argpartition(draws, n_way - 1, axis=1)[:, :n_way]
        order = np.argsort(np.take_along_axis(draws, chosen, 1), axis=1)
        return np.take_along_axis(chosen, order, 1)
    return np.argsort(draws, axis=1)


def _rows(pool: Pool, classes: Ints, take: int, ids: Ints, seed: int) -> Ints:
    """Draw ``take`` different rows of every class.

    [T, C] -> [T, C, take]
    """
    slots = np.arange(int(pool.counts.max()))
    draws = keys(seed, _ROWS, ids[:, None, None], classes[..., None], slots)  # [T, C, max_count]
    # slots beyond the end of a smaller class come last, so that they are never taken
    draws[slots >= pool.counts[classes][..., None]] = _LARGEST_KEY
    if take < len(slots):
        first = np.argpartition(draws, take - 1, axis=2)[..., :take]
        order = np.argsort(np.take_along_axis(draws, first, 2), axis=2)
        first = np.take_along_axis(first, order, 2)
    else:
        first = np.argsort(draws, axis=2)
    return pool.offsets[classes][..., None] + first


def _shuffle(
    rows: Ints, labels: Ints, tasks: Ints | int, seed: int, stream: int
) -> tuple[Ints, Ints]:
    """Put the examples of each task in a random order; one task needs no task axis.

    [T, N] -> [T, N], or [N] -> [N]
    """
    draws = keys(seed, stream, np.asarray(tasks)[..., None], np.arange(rows.shape[-1]))
    order = np.argsort(draws, axis=-1)
    return np.take_along_axis(rows, order, -1), np.take_along_axis(labels, order, -1)


def _shuffled(episode: EpisodeRows, task: int, seed: int) -> EpisodeRows:
    """Return the same episode with support and query in a random order."""
    return EpisodeRows(
        *_shuffle(episode.support, episode.support_y, task, seed, _SUPPORT_ORDER),
        *_shuffle(episode.query, episode.query_y, task, seed, _QUERY_ORDER),
        episode.classes,
    )


def _fixed(pool: Pool, spec: EpisodeSpec, ids: Ints, seed: int) -> EpisodeIndex:
    """Draw episodes of one size, all at once."""
    tasks, n_way, k_shot = len(ids), spec.max_way, spec.max_shot
    classes = _classes(pool, n_way, ids, seed)  # [T, C]
    rows = _rows(pool, classes, k_shot + spec.n_query, ids, seed)  # [T, C, K+q]
    labels = np.broadcast_to(np.arange(n_way)[:, None], rows.shape)
    support, support_y = (a[..., :k_shot].reshape(tasks, -1) for a in (rows, labels))  # [T, C*K]
    query, query_y = (a[..., k_shot:].reshape(tasks, -1) for a in (rows, labels))  # [T, C*q]
    return EpisodeIndex(
        *_shuffle(support, support_y, ids, seed, _SUPPORT_ORDER),
        *_shuffle(query, query_y, ids, seed, _QUERY_ORDER),
        classes,
    )


def _variable(pool: Pool, spec: EpisodeSpec, task: int, seed: int) -> EpisodeRows:
    """Draw one episode whose way or shot is drawn from a range."""
    ways = spec.max_way - spec.min_way + 1
    n_way = spec.min_way + int(float(uniforms(seed, _WAY, task)) * ways)
    ids = np.array([task])
    classes = _classes(pool, n_way, ids, seed)  # [1, C]
    sizes = pool.counts[classes[0]]
    # equation 1 of Meta-Dataset: at most half of the smallest class; and where that would leave too
    # few support examples, fewer still
    n_query = int(min(spec.n_query, (sizes // 2).min(), (sizes - spec.min_shot).min()))
    shots = (
        _imbalanced_shots(sizes, n_query, spec.k_shot, task, seed)
        if isinstance(spec.k_shot, tuple)
        else np.minimum(spec.k_shot, sizes - n_query)
    )
    rows = _rows(pool, classes, int((shots + n_query).max()), ids, seed)[0]  # [C, max]
    support = [rows[c, :k] for c, k in enumerate(shots)]
    query = [rows[c, k : k + n_query] for c, k in enumerate(shots)]
    return _shuffled(EpisodeRows.from_classes(classes[0], support, query), task, seed)


def _imbalanced_shots(
    sizes: Ints, n_query: int, k_shot: tuple[int, int], task: int, seed: int
) -> Ints:
    """Return the shot of each class ``[C]`` by Meta-Dataset's procedure (section 3.2).

    The size of the support set is ``min(500, sum_c ceil(beta * min(k_max, size_c - q)))`` with
    ``beta`` uniform in (0, 1] (equation 2): one number for all classes, so that some tasks have few
    examples and some have many. It is shared out in proportion to ``exp(alpha_c) * size_c`` with
    ``alpha_c`` uniform in [log 0.5, log 2) (equation 3): large classes get more, up to a factor of
    four between two classes of the same size.

    *Difference from the paper*: ``k_max`` is the upper end of ``k_shot`` (100 in the paper), and
    every shot is clipped to ``k_shot``.
    """
    low, high = k_shot
    n_way = len(sizes)
    beta = 1.0 - float(uniforms(seed, _SIZE, task))
    total = min(_MAX_SUPPORT, int(np.ceil(beta * np.minimum(high, sizes - n_query)).sum()))
    alpha = np.log(0.5) + uniforms(seed, _IMBALANCE, task, np.arange(n_way)) * np.log(4.0)
    share = np.exp(alpha) * sizes
    # every class has one example; the rest is shared out and rounded down
    shots = (share / share.sum() * max(0, total - n_way)).astype(np.int64) + 1
    return np.asarray(np.minimum(np.clip(shots, low, high), sizes - n_query))


def _grouped(pool: Pool, spec: EpisodeSpec, task: int, seed: int) -> EpisodeRows:
    """Draw one episode in which no group stands in both the support and the query."""
    assert pool.groups is not None
    groups, counts, offsets = pool.groups.numpy(), pool.counts, pool.offsets
    classes = _classes(pool, spec.max_way, np.array([task]), seed)[0]
    rows = [np.arange(offsets[c], offsets[c] + counts[c]) for c in classes]
    support_groups = _support_groups(pool, classes, [groups[r] for r in rows], spec, task, seed)
    support, query = [], []
    for c, class_rows in zip(classes, rows, strict=True):
        draws = keys(seed, _ROWS, task, int(c), np.arange(len(class_rows)))
        ordered = class_rows[np.argsort(draws)]
        chosen, rest = split_by_groups(ordered, groups[ordered], support_groups, spec.max_shot)
        support.append(chosen)
        query.append(rest[: spec.n_query])
    return _shuffled(EpisodeRows.from_classes(classes, support, query), task, seed)


def _support_groups(
    pool: Pool, classes: Ints, groups: list[Ints], spec: EpisodeSpec, task: int, seed: int
) -> Ints:
    """Return the groups that the support is drawn from; the query is drawn from all others.

    Groups that belong to one class only (video tracks) are divided class by class, which leaves
    more ways to do it. If a group spans classes (drawers), the groups are divided once for the
    whole episode, or a drawer could be support in one class and query in another.

    Args:
        pool: for errors.
        classes: classes of the episode ``[C]``.
        groups: group of each row, for each of these classes.
        spec: how many examples of a class each side needs.
        task: the episode.
        seed: names the list of episodes.
    """
    tables = [np.unique(of_class, return_counts=True) for of_class in groups]
    names = np.unique(np.concatenate([table[0] for table in tables]))
    sizes = np.zeros((len(classes), len(names)), dtype=np.int64)  # [C, groups]
    for row, (group, count) in zip(sizes, tables, strict=True):
        row[np.searchsorted(names, group)] = count
    if ((sizes > 0).sum(0) > 1).any():
        return _divide(pool, classes, names, sizes, spec, task, seed)
    parts = []
    for c in range(len(classes)):
        own = sizes[c] > 0
        parts.append(_divide(pool, classes[[c]], names[own], sizes[[c]][:, own], spec, task, seed))
    return np.concatenate(parts)


def _divide(
    pool: Pool, classes: Ints, names: Ints, sizes: Ints, spec: EpisodeSpec, task: int, seed: int
) -> Ints:
    """Return some of the groups, so that every class has enough rows in them and in the others.

    The groups are put in a random order, and the first of them are returned. Where several places
    to stop are possible, it is the one nearest to the support's share of the examples.

    Args:
        pool: for errors.
        classes: classes to divide ``[C]``.
        names: their groups ``[G]``.
        sizes: rows of each class in each group ``[C, G]``.
        spec: how many examples of a class each side needs.
        task: the episode.
        seed: names the list of episodes.
    """
    wanted = len(names) * spec.max_shot / (spec.max_shot + spec.n_query)
    for attempt in range(_GROUP_ORDERS_TRIED):
        order = np.argsort(keys(seed, _GROUPS, task, attempt, names))
        before = sizes[:, order].cumsum(1)  # rows of each class in the first g+1 groups
        after = sizes.sum(1, keepdims=True) - before
        enough = ((before >= spec.max_shot) & (after >= spec.n_query)).all(0)
        if enough.any():
            numbers = np.flatnonzero(enough) + 1  # of groups that the support may have
            return names[order[: int(numbers[np.abs(numbers - wanted).argmin()])]]
    worst = int(sizes.sum(1).argmin())
    raise TaskError(
        f"{pool.name}: the {int((sizes[worst] > 0).sum())} groups of class "
        f"{pool.class_names[classes[worst]]!r} cannot be split into {spec.max_shot} support and "
        f"{spec.n_query} query examples without sharing a group. Lower k_shot or n_query."
    )
