"""What a head says of the support examples of a task that it has not seen."""

from __future__ import annotations

import torch
from torch import Tensor

from quickstudy.core import Examples
from quickstudy.fitting.evidence import Evidence, gather_evidence
from quickstudy.fitting.heads import quick_twin
from quickstudy.learners.heads import CentredHead, held_out_in, held_out_logits

__all__ = ["is_large", "judged_support"]

_FOLDS = 5
# examples times classes above which one fold is held out, not all five in turn: each is a refit
_LARGE_TASK = 1_000_000


def is_large(support: Examples, n_way: int) -> bool:
    """Return whether a task is so large that only one fold of it is held out."""
    return support.y.numel() * n_way > _LARGE_TASK


@torch.no_grad()
def judged_support(
    head: CentredHead,
    support: Examples,
    n_way: int,
    groups: Tensor | None,
    *,
    whole: bool = False,
) -> Evidence:
    """Return the statistics of a support set.

    Args:
        head: answers held-out examples after it has seen the others.
        support: examples in the prior's metric ``[1, S, D]``.
        n_way: number of classes ``C``.
        groups: number of the group of each example ``[S]``; ``None`` = only copies belong together.
        whole: hold out every example of a large task too; else one fold of every class.
    """
    seen = head.seen(support, n_way=n_way)
    one_shot = int(torch.bincount(support.y[0]).max()) < 2
    asked, rounds = None, _FOLDS
    of_task = None if groups is None else groups[None].long()
    if not whole and is_large(support, n_way):
        rounds = 1
        asked = held_out_in(support, n_way=n_way, folds=_FOLDS, rounds=rounds, groups=of_task)
    if one_shot:
        # every example is alone in its class: none could be judged, so the refits are saved
        held_out = torch.zeros(*support.y.shape, n_way)
    else:
        held_out = held_out_logits(
            quick_twin(head), support, n_way=n_way, folds=_FOLDS, rounds=rounds, groups=of_task
        )
    return gather_evidence(seen, held_out, n_way=n_way, asked=asked, groups=of_task)
