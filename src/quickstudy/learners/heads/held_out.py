"""Logits of support examples from a head that was fitted without them (cross-validation)."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.base import Learner

__all__ = ["held_out_in", "held_out_logits", "held_out_together"]

# numbers in all the copies of a support that are fitted at once: 2^24 float32 numbers are 67 MB
_COPIED_NUMBERS_AT_ONCE = 1 << 24


def held_out_logits(
    head: Learner,
    support: Examples,
    *,
    n_way: int,
    folds: int | None = None,
    rounds: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Return the logits of each support example from a state that was learned without it.

    The head adapts once for each part, without that part of every class (stratified
    cross-validation, Kohavi 1995), so that every class loses the same share of its examples.
    Leaving out one example at a time would weaken its own class alone. Every head is then worse on
    it than on queries, some heads much more than others, so heads could not be compared.

    Copies of one example are left out together, and so are the members of a group: no example is
    judged by a copy of itself. Where an example is the only one of its class, apart from these, its
    class is absent when it is judged: its own logit is minus infinity.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: number of parts of every class, at least 2; ``None`` = one example at a time, ``S``
            times.
        rounds: how many of the parts are held out in turn; ``None`` = all.
        groups: number of the group that each example belongs to ``[T, S]``; ``None`` = only copies
            belong together.

    Returns:
        Logits ``[T, S, C]``: zeros for examples that are never held out (see
        :func:`held_out_in`), without meaning for padding.
    """
    tasks, size = support.y.shape
    part = _parts(support, n_way, folds, groups)  # [T, S]
    parts = int(part.max()) + 1 if part.numel() else 0
    rounds = parts if rounds is None else min(rounds, parts)
    found: Tensor = support.x.new_zeros(tasks, size, n_way)
    at_once = max(1, _COPIED_NUMBERS_AT_ONCE // max(1, support.x.numel()))
    for first in range(0, rounds, at_once):
        index = torch.arange(first, min(first + at_once, rounds), device=part.device)
        out = part == index[:, None, None]  # [R, T, S]
        n = len(index)
        kept = support.mask & ~out
        # no head adapts to an empty support: a task that would lose everything keeps its examples,
        # and gets minus infinity for all logits below
        emptied = ~kept.any(2, keepdim=True)
        many = Examples(
            support.x.expand(n, -1, -1, -1).flatten(0, 1),
            support.y.expand(n, -1, -1).flatten(0, 1),
            torch.where(emptied, support.mask, kept).flatten(0, 1),
        )
        # predict only what was left out: the same number of rows for all tasks, padded
        most = int(out.sum(2).max())
        rows = out.int().argsort(dim=2, descending=True, stable=True)[..., :most]  # [R, T, M]
        wide = rows[..., None].expand(-1, -1, -1, support.x.shape[2])
        x = support.x.expand(n, -1, -1, -1).gather(2, wide)
        logits = head.predict(head.adapt(many, n_way=n_way), x.flatten(0, 1))
        logits = logits.masked_fill(emptied.flatten(0, 1)[..., None], -torch.inf)
        r, t, m = out.gather(2, rows).nonzero(as_tuple=True)
        found[t, rows[r, t, m]] = logits.unflatten(0, (n, tasks))[r, t, m]
    return found


def held_out_in(
    support: Examples, *, n_way: int, folds: int, rounds: int, groups: Tensor | None = None
) -> Tensor:
    """Return which examples are held out in the first rounds of :func:`held_out_logits`, bool
    ``[T, S]``.

    Args:
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: number of parts of every class.
        rounds: how many of the parts are held out.
        groups: see :func:`held_out_logits`.
    """
    return _parts(support, n_way, folds, groups) < rounds


def held_out_together(support: Examples, groups: Tensor | None = None) -> Tensor:
    """Return the position of the first example that each one is held out with ``[T, S]``: of its
    group, or with the same bits and the same label, or the example itself.

    Args:
        support: examples ``[T, S, D]``.
        groups: number of the group that each example belongs to ``[T, S]``; ``None`` = only copies
            belong together.
    """
    first = _first_copies(support)
    if groups is None:
        return first
    found = first.clone()
    for t in range(len(found)):
        # a copy may tie two groups, and a group two copies: what is tied has one first example
        while True:
            least = found[t].new_full((int(groups[t].max()) + 1,), found.shape[1])
            least = least.scatter_reduce(0, groups[t], found[t], "amin")[groups[t]]
            tied = torch.full_like(least, found.shape[1])
            tied = tied.scatter_reduce(0, first[t], least, "amin")[first[t]]
            if torch.equal(tied, found[t]):
                break
            found[t] = tied
    return found


def _first_copies(support: Examples) -> Tensor:
    """Return the position of the first copy of each example ``[T, S]``: an example with the same
    bits and the same label, or the example itself if there is none before it."""
    tasks, size = support.y.shape
    place = torch.arange(size, device=support.y.device).expand(tasks, size)
    # equal rows have equal checksums, so only tasks with two equal ones are compared bit by bit
    weights = torch.linspace(1, 2, support.x.shape[2], dtype=torch.float64, device=support.x.device)
    key = (support.x.double() * weights).sum(2)
    ordered = key.sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if not twice.any():
        return place
    first = place.clone()
    for t in twice.nonzero()[:, 0].tolist():
        seen: dict[tuple[int, bytes], int] = {}
        rows, labels = support.x[t].cpu().contiguous().numpy(), support.y[t].tolist()
        for s in support.mask[t].nonzero()[:, 0].tolist():
            first[t, s] = seen.setdefault((labels[s], rows[s].tobytes()), s)
    return first


def _parts(support: Examples, n_way: int, folds: int | None, groups: Tensor | None) -> Tensor:
    """Return the number of the part that each example belongs to ``[T, S]``."""
    size = support.y.shape[1]
    first_copy = held_out_together(support, groups)
    own = torch.arange(size, device=support.y.device)
    if folds is None:
        return first_copy
    # padding and copies go into a class of their own, so that they take no place in the others;
    # copies and members of a group get the part of the first of them at the end
    y = torch.where(support.mask, support.y, n_way)
    y = torch.where(first_copy == own, y, n_way)
    # rank: how many examples of its class stand before each, found by sorting the labels
    ordered, order = y.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    place = torch.arange(size, device=y.device) - first
    rank = torch.empty_like(place).scatter_(1, order, place)
    return (rank % max(2, folds)).gather(1, first_copy)
