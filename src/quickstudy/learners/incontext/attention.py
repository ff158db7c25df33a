"""Multihead attention over sets with padding (Vaswani et al. 2017, sections 3.2.1 and 3.2.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size

__all__ = ["AttentionBlock", "MultiheadAttention"]


@checked
class MultiheadAttention(nn.Module):
    """Reads values by how well queries fit their keys.

    Keys and values are made once, by :meth:`cache`, and read by any number of queries.

    *Difference from the paper*: keys have no bias. It would add the same number to all scores of a
    query, and the softmax takes that out again.

    Args:
        query_features: width of what reads.
        key_features: width of what keys are made of.
        value_features: width of what values are made of.
        width: of keys, values and what is read.
        heads: number of heads, a divisor of ``width``.

    Raises:
        ConfigError: if a number is out of range or ``heads`` does not divide ``width``.

    Example::

        from quickstudy.learners.incontext import MultiheadAttention

        attention = MultiheadAttention(8, 8, 16, width=32, heads=4)
        keys, values = attention.cache(torch.rand(2, 10, 8), torch.rand(2, 10, 16))
        mask = torch.ones(2, 10, dtype=torch.bool)
        read = attention(torch.rand(2, 5, 8), keys, values, mask)  # [2, 5, 32]
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        value_features: int,
        *,
        width: int,
        heads: int,
    ) -> None:
        super().__init__()
        check_size(width=width, heads=heads)
        if width % heads:
            raise ConfigError(
                f"width must be a multiple of heads; got width={width} and heads={heads}. Each "
                "head gets an equal part."
            )
        self.heads = heads
        self.query = nn.Linear(query_features, width)
        self.key = nn.Linear(key_features, width, bias=False)
        self.value = nn.Linear(value_features, width)
        self.out = nn.Linear(width, width)

    def cache(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return projected keys and values, each ``[T, S, width]``."""
        return self.key(keys), self.value(values)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return what each query reads ``[T, Q, width]``.

        Args:
            x: queries ``[T, Q, query_features]``.
            keys: from :meth:`cache` ``[T, S, width]``; finite where there is padding too.
            values: from :meth:`cache` ``[T, S, width]``.
            mask: bool ``[T, S]``, ``False`` = padding; at least one of each task is real.
        """
        q, k, v = (self._split(part) for part in (self.query(x), keys, values))
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5  # [T, H, Q, S]
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        read = scores.softmax(3) @ v  # [T, H, Q, D]
        out: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """Divide the width among the heads, ``[T, N, H * D] -> [T, H, N, D]``."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


@checked
class AttentionBlock(nn.Module):
    """Self-attention among the members of a set, then a layer for each: both added to the input.

    Args:
        width: of a member.
        heads: number of heads, a divisor of ``width``.

    Raises:
        ConfigError: if a number is out of range or ``heads`` does not divide ``width``.

    Example::

        from quickstudy.learners.incontext import AttentionBlock

        block = AttentionBlock(32, heads=4)
        mask = torch.ones(2, 10, dtype=torch.bool)
        members = block(torch.rand(2, 10, 32), mask)  # [2, 10, 32]
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attention = MultiheadAttention(width, width, width, width=width, heads=heads)
        self.before_attention = nn.LayerNorm(width)
        self.before_layer = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the members after reading one another, ``[T, N, width] -> [T, N, width]``."""
        y = self.before_attention(x)
        x = x + self.attention(y, *self.attention.cache(y, y), mask)
        out: Tensor = x + self.outer(F.gelu(self.inner(self.before_layer(x))))
        return out
