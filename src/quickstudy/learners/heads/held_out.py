"""What a head says about support examples that it has not seen."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.learners.base import Learner

__all__ = ["first_copies", "held_out_in", "held_out_logits"]

# numbers of support copies at once: some hundred megabytes
_NUMBERS_AT_ONCE = 1 << 24


def held_out_logits(
    head: Learner,
    support: Examples,
    *,
    n_way: int,
    folds: int | None = None,
    rounds: int | None = None,
) -> Tensor:
    """Return the logits of each support example from a state that was learned without it.

    By adapting again, each time without a part of every class (stratified cross-validation, Kohavi
    1995), so that no class is weakened more than another. Leaving out one example at a time weakens
    its own class alone, and every head is then worse on it than on queries, some heads much more
    than others: they could not be compared.

    Copies of one example are left out together: an example is no witness for itself. An example
    that is alone in its class, but for copies, is judged where its class is absent: its own logit
    is minus infinity.

    Args:
        head: a learner on embeddings.
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: parts of every class, at least 2; ``None`` = one example at a time, ``S`` times.
        rounds: how many of the parts are held out in turn; ``None`` = all. Others than
            :func:`held_out_in` says keep zeros.

    Returns:
        Logits ``[T, S, C]``; rows of padding mean nothing.
    """
    tasks, size = support.y.shape
    part = _parts(support, n_way, folds)  # [T, S]: which refit leaves the example out
    parts = int(part.max()) + 1 if part.numel() else 0
    rounds = parts if rounds is None else min(rounds, parts)
    found: Tensor = support.x.new_zeros(tasks, size, n_way)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, support.x.numel()))
    for first in range(0, rounds, at_once):
        index = torch.arange(first, min(first + at_once, rounds), device=part.device)
        out = part == index[:, None, None]  # [R, T, S]
        n = len(index)
        kept = support.mask & ~out
        # a head learns nothing from nothing: a task that would lose all stays whole, and says so
        emptied = ~kept.any(2, keepdim=True)
        many = Examples(
            support.x.expand(n, -1, -1, -1).flatten(0, 1),
            support.y.expand(n, -1, -1).flatten(0, 1),
            torch.where(emptied, support.mask, kept).flatten(0, 1),
        )
        # only what was left out is asked for
        most = int(out.sum(2).max())
        rows = out.int().argsort(dim=2, descending=True, stable=True)[..., :most]  # [R, T, M]
        wide = rows[..., None].expand(-1, -1, -1, support.x.shape[2])
        x = support.x.expand(n, -1, -1, -1).gather(2, wide)
        logits = head.predict(head.adapt(many, n_way=n_way), x.flatten(0, 1))
        logits = logits.masked_fill(emptied.flatten(0, 1)[..., None], -torch.inf)
        r, t, m = out.gather(2, rows).nonzero(as_tuple=True)
        found[t, rows[r, t, m]] = logits.unflatten(0, (n, tasks))[r, t, m]
    return found


def held_out_in(support: Examples, *, n_way: int, folds: int, rounds: int) -> Tensor:
    """Return which examples the first rounds of :func:`held_out_logits` hold out, bool ``[T, S]``.

    Args:
        support: examples ``[T, S, D]``.
        n_way: number of classes ``C``.
        folds: parts of every class.
        rounds: how many of them.
    """
    return _parts(support, n_way, folds) < rounds


def first_copies(support: Examples) -> Tensor:
    """Return for each example the place of the first one that is the same, bit for bit, and has the
    same label ``[T, S]``; its own place where there is none before it.

    Args:
        support: examples ``[T, S, D]``.
    """
    tasks, size = support.y.shape
    place = torch.arange(size, device=support.y.device).expand(tasks, size)
    # equal rows have equal checksums; only tasks where two are equal are looked at closely
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


def _parts(support: Examples, n_way: int, folds: int | None) -> Tensor:
    """Return the number of the refit that leaves an example out ``[T, S]``."""
    size = support.y.shape[1]
    first_copy = first_copies(support)
    own = torch.arange(size, device=support.y.device)
    if folds is None:
        return first_copy
    y = torch.where(support.mask, support.y, n_way)  # padding is a class of its own
    y = torch.where(first_copy == own, y, n_way)  # and copies are with it: they follow the first
    # how many examples of its class stand before each: its place among them once sorted
    ordered, order = y.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    place = torch.arange(size, device=y.device) - first
    rank = torch.empty_like(place).scatter_(1, order, place)
    return (rank % max(2, folds)).gather(1, first_copy)
