"""Attention of queries to a cached support set, class by class: the layers of a transformer whose
tokens are pairs of a query and a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_size

__all__ = ["Members", "PairBlock", "check_heads"]

# largest score by keys, and by relations: the exponential of their sum stays a float32 number, so
# that no largest score has to be subtracted
_BOUND = 20.0
_TINY = 1e-30
_MEMBERS, _CLASSES = 0, 1  # rows of the table of scales


@checked
def check_heads(width: int, heads: int) -> None:
    """Raise :class:`ConfigError` unless ``width`` can be divided among the heads."""
    check_size(width=width, heads=heads)
    if width % heads:
        raise ConfigError(
            f"width must be a multiple of heads; got width={width} and heads={heads}. Change one."
        )


@dataclass(frozen=True, slots=True)
class Members:
    """A support set as a layer reads it.

    Args:
        labels: class of each example ``[T, S]``.
        kept: ``False`` = padding ``[T, S]``.
        keys: from :meth:`PairBlock.cache` ``[T, S, W]``; ``None`` = not cached.
        values: likewise.

    Example::

        Members(torch.arange(5).repeat(2)[None], torch.ones(1, 10, dtype=torch.bool))
    """

    labels: Tensor
    kept: Tensor
    keys: Tensor | None = None
    values: Tensor | None = None


@checked
class PairBlock(nn.Module):
    """One layer on tokens of pairs ``(query, class)``.

    A pair reads the members of its class in the support, compares itself with the pairs of the same
    query and the other classes, and is transformed alone (pre-norm residual layers, Xiong et al.
    2020, "On layer normalization in the transformer architecture", figure 1b). The same weights
    serve all classes, so renaming classes only reorders the tokens.

    A member is read by what relates the query to it, and, with ``cached``, by a key and a value
    that depend on that member alone, so that more may be added to them later. Queries and keys have
    length one in each head (Henry et al. 2020, "Query-key normalization for transformers", section
    3): scores are bounded, and the sums of the softmax over the members of a class are plain sums.

    Args:
        width: numbers in a token, ``W``.
        heads: heads of attention ``H``; they divide the width.
        relations: numbers that relate a query to a member, ``F``.
        hidden: width of the hidden layer of the feed-forward part.
        cached: whether members also have keys and values.
        dropout: share of numbers that training sets to zero in each part's result.

    Raises:
        ConfigError: if a size is not usable, or the heads do not divide the width.

    Example::

        block = PairBlock(32, heads=4, relations=8, hidden=64)
        labels = torch.arange(5).repeat(2)[None]  # [1, 10]
        kept, present = torch.ones(1, 10, dtype=torch.bool), torch.ones(1, 5, dtype=torch.bool)
        support = Members(labels, kept, *block.cache(torch.randn(1, 10, 32)))
        relations, between = torch.randn(1, 3, 10, 8), torch.randn(1, 5, 5, 1)
        pairs = block(torch.randn(1, 3, 5, 32), support, relations, between, present)
        pairs  # [1, 3, 5, 32]
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        relations: int,
        hidden: int,
        cached: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        check_size(relations=relations, hidden=hidden)
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1); got {dropout}.")
        self.heads, self.cached = heads, cached
        self.log_scale = nn.Parameter(torch.ones(2, heads))
        if cached:
            self.to_cache = nn.Linear(width, 2 * width, bias=False)
            self.read_norm, self.to_read = nn.LayerNorm(width), nn.Linear(width, width, bias=False)
        # no bias: the softmax would take it out again
        self.relation_score = nn.Linear(relations, heads, bias=False)
        self.from_read = nn.Linear(heads * relations + (width if cached else 0), width)
        self.class_norm = nn.LayerNorm(width)
        self.to_class, self.from_class = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.between_score = nn.Linear(1, heads, bias=False)
        self.own_norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def cache(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values ``[T, S, W]`` of support tokens ``[T, S, W]``."""
        keys, values = self.to_cache(tokens).chunk(2, dim=2)
        return F.normalize(keys.unflatten(2, (self.heads, -1)), dim=3).flatten(2), values

    def forward(
        self, pairs: Tensor, members: Members, relations: Tensor, between: Tensor, present: Tensor
    ) -> Tensor:
        """Return the tokens of pairs after this layer.

        Args:
            pairs: tokens ``[T, Q, C, W]``.
            members: the support.
            relations: of queries to support examples ``[T, Q, S, F]``.
            between: nearness of the classes to each other ``[T, C, C, 1]``.
            present: classes with support ``[T, C]``.
        """
        pairs = pairs + self.dropout(self.from_read(self._read(pairs, members, relations)))
        compared = self._compare(self.class_norm(pairs), between, present)
        pairs = pairs + self.dropout(self.from_class(compared))
        alone: Tensor = self.outer(F.gelu(self.inner(self.own_norm(pairs))))
        after: Tensor = pairs + self.dropout(alone)
        return after

    def _read(self, pairs: Tensor, members: Members, relations: Tensor) -> Tensor:
        """Return for each pair the means of its class's members, weighted by attention, one for
        each head ``[T, Q, C, ...]``; zero for a class without members."""
        tasks, asked, classes, _ = pairs.shape
        heads = self.heads
        score = _BOUND * (self.relation_score(relations) / _BOUND).tanh()  # [T, Q, S, H]
        read = relations[:, :, :, None].expand(-1, -1, -1, heads, -1)
        labels = members.labels[:, None, :, None, None].expand(-1, asked, -1, heads, 1)
        if members.keys is not None and members.values is not None:
            queries = self.to_read(self.read_norm(pairs)).unflatten(3, (heads, -1))
            queries = F.normalize(queries, dim=4)
            # each member is asked by the pairs of its own class only: [T, Q, C, H, D] -> [.. S ..]
            own = queries.gather(2, labels.expand(-1, -1, -1, -1, queries.shape[4]))
            keys = members.keys.unflatten(2, (heads, -1))[:, None]
            score = score + (own * keys).sum(4) * self._scale(_MEMBERS)
            values = members.values.unflatten(2, (heads, -1))[:, None]
            read = torch.cat([read, values.expand(-1, asked, -1, -1, -1)], 4)
        weights = score.exp() * members.kept[:, None, :, None]
        total = weights.new_zeros(tasks, asked, classes, heads)
        total = total.scatter_add(2, labels[..., 0], weights)
        sums = weights.new_zeros(tasks, asked, classes, heads, read.shape[4])
        sums = sums.scatter_add(2, labels.expand_as(read), weights[..., None] * read)
        # a class without members has the sum 0; of the others no weight is below exp(-40)
        means: Tensor = (sums / total.clamp(min=_TINY)[..., None]).flatten(3)
        return means

    def _compare(self, pairs: Tensor, between: Tensor, present: Tensor) -> Tensor:
        """Return what attention among the pairs of one query reads ``[T, Q, C, W]``."""
        parts = self.to_class(pairs).unflatten(3, (3, self.heads, -1))  # [T, Q, C, 3, H, D]
        q, k, v = parts.permute(3, 0, 1, 4, 2, 5)  # each [T, Q, H, C, D]
        q, k = F.normalize(q, dim=4), F.normalize(k, dim=4)
        scores = q @ k.transpose(3, 4) * self._scale(_CLASSES)[:, None, None]
        scores = scores + self.between_score(between).permute(0, 3, 1, 2)[:, None]
        weights = scores.masked_fill(~present[:, None, None, None], -torch.inf).softmax(4)
        seen: Tensor = (weights @ v).transpose(2, 3).flatten(3)
        return seen

    def _scale(self, part: int) -> Tensor:
        """Return the factor of the cosines of each head ``[H]``."""
        factor: Tensor = self.log_scale[part].exp().clamp(max=_BOUND)
        return factor
