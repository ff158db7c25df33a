"""Rows of a table, looked up by whole numbers, with derivatives that are right to any order.

PyTorch's own lookup has a backward pass of its own kind. Under ``vmap`` it takes the tables of all
tasks for one long table and knows a padding row in the first alone; its bag has no second
derivative; and its sparse gradient cannot be differentiated. Here a lookup is plain indexing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.core import ConfigError
from quickstudy.nets.norm import under_vmap

__all__ = ["embedding", "embedding_bag"]


def embedding(
    rules: Any,  # noqa: ARG001
    func: Any,  # noqa: ARG001
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False,
    sparse: bool = False,  # noqa: ARG001
) -> Tensor:
    """Return the rows of a table ``[..., D]``; arguments as in ``F.embedding``."""
    _refuse_renormalising(max_norm)
    if not scale_grad_by_freq and not under_vmap(weight):
        # task by task, PyTorch's own derivative is right; a dense one replaces the sparse one
        return F.embedding(input, weight, padding_idx)
    return _rows(input, weight, padding_idx, scale_grad_by_freq)


def _rows(
    input: Tensor, weight: Tensor, padding_idx: int | None, scale_grad_by_freq: bool
) -> Tensor:
    rows = F.embedding(input, weight)
    if scale_grad_by_freq:
        token = input.flatten().long()
        counts = torch.zeros_like(weight[:, 0]).index_add(
            0, token, torch.ones_like(token, dtype=weight.dtype)
        )
        # the value stays, the gradient is divided by how often the token occurs
        still = rows.detach()
        rows = still + (rows - still) / counts[input.long()][..., None]
    if padding_idx is not None:
        padding = (input == padding_idx % len(weight))[..., None]
        rows = torch.where(padding, rows.detach(), rows)
    return rows


def embedding_bag(
    rules: Any,  # noqa: ARG001
    func: Any,  # noqa: ARG001
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,  # noqa: ARG001
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,  # noqa: ARG001
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,  # noqa: ARG001
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or maximum of each bag's rows ``[N, D]``; arguments as in
    ``F.embedding_bag``."""
    _refuse_renormalising(max_norm)
    if offsets is not None or input.ndim != 2:
        raise ConfigError(
            "a bag of tokens given by offsets is not supported in an inner loop. Give the tokens "
            "as [N, L], a row for each example, and fill short ones with padding_idx."
        )
    rows = _rows(input, weight, padding_idx, scale_grad_by_freq)  # [N, L, D]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[..., None]
    if padding_idx is None:
        kept = torch.ones_like(input, dtype=torch.bool)
    else:
        kept = input != padding_idx % len(weight)
    size = kept.sum(1, keepdim=True)  # [N, 1]
    if mode == "max":
        largest = rows.masked_fill(~kept[..., None], -torch.inf).max(1).values
        # a bag of nothing but padding is zero
        return torch.where(size > 0, largest, torch.zeros_like(largest))
    total = rows.masked_fill(~kept[..., None], 0.0).sum(1)
    return total / size.clamp(min=1) if mode == "mean" else total


def _refuse_renormalising(max_norm: float | None) -> None:
    if max_norm is not None:
        raise ConfigError(
            f"an embedding with max_norm={max_norm:g} shortens its rows in place when they are "
            "looked up, so learning a task would change the learner. Build it with max_norm=None."
        )
