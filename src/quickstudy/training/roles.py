"""Roles: every example of an episode serves as support once and as query in all other turns."""

from __future__ import annotations

import torch

from quickstudy.core import Episode, Examples, TaskError
from quickstudy.core.arguments import checked

__all__ = ["every_role"]


@checked
def every_role(episode: Episode, *, k_shot: int) -> Episode:
    """Return the tasks that arise when the episode's examples change roles.

    The ``M`` examples of each class are cut into ``M // k_shot`` disjoint supports. In each turn
    one of them is the support and all other examples are queries. One 60-way 1-shot 5-query episode
    becomes six, and its examples are still embedded only once. This uses the distances between
    examples that ordinary episodes ignore (Laenen and Bertinetto 2021, "On Episodes, Prototypical
    Networks, and Few-shot Learning", section 3).

    The examples returned are sorted by class. A head that reads its support in order (full-context
    embeddings) should be trained with fixed roles instead.

    Args:
        episode: ``T`` tasks without padding, equally many examples of each class.
        k_shot: support examples per class.

    Returns:
        An episode with ``T * (M // k_shot)`` tasks.

    Raises:
        TaskError: if the episode is padded, imbalanced or a regression, or a class has no more
            than ``k_shot`` examples.
    """
    x = torch.cat([episode.support.x, episode.query.x], 1)  # [T, N, ...]
    y = torch.cat([episode.support.y, episode.query.y], 1)
    mask = torch.cat([episode.support.mask, episode.query.mask], 1)
    tasks, n, ways = x.shape[0], x.shape[1], episode.n_way
    per_class = n // ways
    counts = torch.zeros(tasks, ways, device=y.device)
    balanced = not episode.regression and bool(mask.all()) and n == ways * per_class
    if balanced:
        counts.scatter_add_(1, y, torch.ones_like(y, dtype=counts.dtype))
        balanced = bool((counts == per_class).all())
    if not balanced or not 1 <= k_shot < per_class:
        raise TaskError(
            "roles='every' needs classification episodes with the same number of examples (more "
            f"than k_shot={k_shot}) in each class. Use a fixed way and shot, or roles='fixed'."
        )
    task = torch.arange(tasks, device=y.device)[:, None]
    order = torch.argsort(y, dim=1, stable=True)
    x = x[task, order].unflatten(1, (ways, per_class))  # [T, C, M, ...]
    y = y[task, order].unflatten(1, (ways, per_class))
    starts = range(0, per_class - k_shot + 1, k_shot)

    # slices instead of one gather: where a gather repeats rows, its gradient is summed in an order
    # that may change from run to run
    def support(v: torch.Tensor) -> torch.Tensor:
        turns = [v[:, :, at : at + k_shot].flatten(1, 2) for at in starts]
        return torch.stack(turns, 1).flatten(0, 1)  # [T * turns, C*K, ...]

    def query(v: torch.Tensor) -> torch.Tensor:
        rest = [torch.cat([v[:, :, :at], v[:, :, at + k_shot :]], 2) for at in starts]
        return torch.stack([r.flatten(1, 2) for r in rest], 1).flatten(0, 1)

    return Episode(Examples.full(support(x), support(y)), Examples.full(query(x), query(y)), ways)
