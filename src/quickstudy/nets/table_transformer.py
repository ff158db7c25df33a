"""A transformer over the cells of a table: attention along rows and along columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.core import ConfigError
from quickstudy.core.arguments import checked
from quickstudy.core.limits import check_at_least

__all__ = ["Context", "TableTransformer"]

_FEATURES = 3  # of a cell: standardised value, place among the support's values, whether missing
_STANDARD_DEVIATIONS = 4.0  # further ones are drawn in: one extreme cell must not fill the column


@dataclass(frozen=True, slots=True)
class Context:
    """What the network keeps of a support set.

    Args:
        keys: of each layer's attention along the rows, ``[T, L, K, H, R, W]``: ``L`` layers, ``K``
            tokens of a row, ``H`` heads, ``R`` rows with the thinking rows in front.
        values: of the same shape.
        anchors: the support rows as they leave the network ``[T, S, W]``.
    """

    keys: Tensor
    values: Tensor
    anchors: Tensor


class _Attention(nn.Module):
    """Attention with keys and values of its own or from elsewhere, over the second last axis."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def keys_values(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values ``[B, H, N, W / H]`` of ``[B, N, W]``."""
        key, value = self.key_value(h).unflatten(2, (2, self.heads, -1)).unbind(2)
        return F.normalize(key, dim=3).transpose(1, 2), value.transpose(1, 2)

    def forward(self, h: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Return what rows ``[B, N, W]`` read from keys and values."""
        query = self.query(h).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, N, W / H]
        # queries and keys of length 1: the logits stay in bounds at high learning rates
        query = F.normalize(query, dim=3)
        read = F.scaled_dot_product_attention(
            query, key.to(query.dtype), value.to(query.dtype), attn_mask=mask, scale=_SHARPNESS
        )
        out: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return out


_SHARPNESS = 10.0


class _Layer(nn.Module):
    """Attention along the row, attention along the column, and a perceptron for each cell."""

    def __init__(self, width: int, heads: int, hidden: int, slots: int) -> None:
        super().__init__()
        self.norm_row = nn.RMSNorm(width, eps=1e-6)
        self.along_row = _Attention(width, heads)
        self.norm_column = nn.RMSNorm(width, eps=1e-6)
        self.along_column = _Attention(width, heads)
        # the class of a support row, told to all that read the row
        self.label = nn.Embedding(slots + 1, width)
        self.norm_cell = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.normal_(self.label.weight, std=0.5)
        nn.init.zeros_(self.down.weight)

    def row(self, h: Tensor, mask: Tensor | None, *, last: bool) -> Tensor:
        """Let the tokens of each row read each other, ``[T, N, K, W]``; in the last layer only the
        first token reads, and only it is returned."""
        tasks, rows = h.shape[:2]
        flat = self.norm_row(h).flatten(0, 1)  # [T * N, K, W]
        key, value = self.along_row.keys_values(flat)
        if mask is not None:  # [T, K]
            mask = mask[:, None].expand(-1, rows, -1).flatten(0, 1)[:, None, None]
        if last:
            h, flat = h[:, :, :1], flat[:, :1]
        read: Tensor = self.along_row(flat, key, value, mask)
        out: Tensor = h + read.unflatten(0, (tasks, rows))
        return out

    def context(self, h: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values ``[T, K, H, R, W / H]`` of support rows ``[T, R, K, W]``."""
        told = self.norm_column(h) + self.label(slots)[:, :, None]
        tasks = len(h)
        key, value = self.along_column.keys_values(told.transpose(1, 2).flatten(0, 1))
        return key.unflatten(0, (tasks, -1)), value.unflatten(0, (tasks, -1))

    def column(self, h: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Let each token read the same token of the support's rows; then the perceptron."""
        tasks, _, tokens, _ = h.shape
        flat = self.norm_column(h).transpose(1, 2).flatten(0, 1)  # [T * K, N, W]
        if mask is not None:  # [T, R]
            mask = mask[:, None].expand(-1, tokens, -1).flatten(0, 1)[:, None, None]
        read = self.along_column(flat, key.flatten(0, 1), value.flatten(0, 1), mask)
        h = h + read.unflatten(0, (tasks, tokens)).transpose(1, 2)
        out: Tensor = h + self.down(F.gelu(self.up(self.norm_cell(h))))
        return out


@checked
class TableTransformer(nn.Module):
    """Reads a table's support once and answers any number of queries from cached keys and values.

    A row is one token for each group of columns, and one token for its class in front. A layer is
    attention along the row, attention along the column and a perceptron. Queries read the support,
    nothing reads a query. Hollmann et al. (2025), "Accurate predictions on small data with a
    tabular foundation model", Methods, describe the two attentions; the thinking rows (learned rows
    in front of the support) and the groups of columns are theirs as well.

    *Difference from the paper*: the class of a support row is also added to what its keys and
    values are made of, in each layer; a query's answer is read from the support rows by attention
    (as in Matching Networks), so that classes have no order and no logits of their own.

    Args:
        width: of a token, ``W``.
        depth: number of layers, ``L``.
        heads: of each attention; a divisor of ``width``.
        group: columns in a token.
        thinking: learned rows.
        slots: most classes.
        hidden: width of the perceptron.

    Raises:
        ConfigError: if a number is below 1 or the heads do not divide the width.

    Example::

        from quickstudy.nets.table_transformer import TableTransformer
        net = TableTransformer(width=32, depth=2, heads=4, hidden=32)
        cells, there = torch.randn(1, 6, 4, 3), torch.ones(1, 4, dtype=torch.bool)
        slots, mask = torch.tensor([[0, 1, 0, 1, 0, 1]]), torch.ones(1, 6, dtype=torch.bool)
        context = net.read(cells, there, slots, mask)
        similarity = net.answer(context, torch.randn(1, 9, 4, 3), there, mask)  # [1, 9, 6]
    """

    def __init__(
        self,
        *,
        width: int = 160,
        depth: int = 5,
        heads: int = 5,
        group: int = 3,
        thinking: int = 16,
        slots: int = 10,
        hidden: int = 320,
    ) -> None:
        super().__init__()
        check_at_least(
            1,
            width=width,
            depth=depth,
            heads=heads,
            group=group,
            thinking=thinking,
            slots=slots,
            hidden=hidden,
        )
        if width % heads:
            raise ConfigError(f"heads must divide width; got width={width} and heads={heads}.")
        self.width, self.group, self.thinking, self.slots = width, group, thinking, slots
        self.embed = nn.Linear(group * _FEATURES, width)
        self.label = nn.Embedding(slots + 1, width)  # the last one: not known
        self.thoughts = nn.Parameter(0.5 * torch.randn(thinking, 2, width))
        self.layers = nn.ModuleList(_Layer(width, heads, hidden, slots) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.anchor = nn.Linear(width, width, bias=False)
        self.probe = nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        nn.init.normal_(self.label.weight, std=0.5)

    def read(self, cells: Tensor, there: Tensor, slots: Tensor, mask: Tensor) -> Context:
        """Read support rows.

        Args:
            cells: ``[T, S, F, 3]``, see :meth:`cell_features`.
            there: which columns the table has, bool ``[T, F]``.
            slots: number of each row's class, int64 ``[T, S]``.
            mask: which rows are there, bool ``[T, S]``.
        """
        h = self._tokens(cells, slots)
        thoughts = torch.cat(
            [self.thoughts[:, :1], self.thoughts[:, 1:].expand(-1, h.shape[2] - 1, -1)], 1
        )
        h = torch.cat([thoughts.to(h.dtype).expand(len(h), -1, -1, -1), h], 1)  # [T, R, K, W]
        told = F.pad(slots, (self.thinking, 0), value=self.slots)
        columns, rows = self._masks(there, mask)
        keys, values = [], []
        for number, layer in enumerate(self._layers()):
            h = layer.row(h, columns, last=number == len(self.layers) - 1)
            key, value = layer.context(h, told)
            h = layer.column(h, key, value, rows)
            # the last layer has one token: as many as the others, to be one tensor
            keys.append(_wide(key, cells.shape[2], self.group))
            values.append(_wide(value, cells.shape[2], self.group))
        anchors = F.normalize(self.anchor(self.norm(h[:, self.thinking :, 0])), dim=2)
        return Context(torch.stack(keys, 1), torch.stack(values, 1), anchors)

    def answer(self, context: Context, cells: Tensor, there: Tensor, mask: Tensor) -> Tensor:
        """Return how near queries are to support rows, ``[T, Q, S]``; a softmax over the rows is
        the share of each row in the answer.

        Args:
            context: of the support.
            cells: ``[T, Q, F, 3]``.
            there: which columns the table has, bool ``[T, F]``.
            mask: which support rows are there, bool ``[T, S]``.
        """
        unknown = torch.full(cells.shape[:2], self.slots, device=cells.device)
        h = self._tokens(cells, unknown)
        columns, rows = self._masks(there, mask)
        for number, layer in enumerate(self._layers()):
            last = number == len(self.layers) - 1
            h = layer.row(h, columns, last=last)
            key, value = context.keys[:, number], context.values[:, number]
            if last:
                key, value = key[:, :1], value[:, :1]
            h = layer.column(h, key, value, rows)
        probe = F.normalize(self.probe(self.norm(h[:, :, 0])), dim=2)
        # in full precision: the sharpness would make much of a rounding error
        with torch.autocast(cells.device.type, enabled=False):
            exact = torch.promote_types(probe.dtype, torch.float32)
            near = probe.to(exact) @ context.anchors.to(exact).transpose(1, 2)
            return near * torch.exp(self.sharpness)

    def cell_features(self, x: Tensor, sorted_support: Tensor, known: Tensor) -> Tensor:
        """Return what a cell is to the network, ``[T, N, F] -> [T, N, F, 3]``.

        The standardised value, drawn in beyond four deviations; the place among the support's
        values, from -1 to 1, which does not change if the column is stretched; and whether the
        value is missing.

        Args:
            x: cells; NaN = missing.
            sorted_support: the support's values in order ``[T, F, S]``, infinity for missing ones.
            known: how many of them there are ``[T, F]``.
        """
        inside = torch.arange(sorted_support.shape[2], device=x.device) < known[..., None]
        values = sorted_support.masked_fill(~inside, 0.0)
        count = known.clamp(min=1).to(x.dtype)
        mean = values.sum(2) / count  # [T, F]
        spread = ((values - mean[..., None]) * inside).square().sum(2) / count
        scale = spread.sqrt()
        flat = scale <= 1e-6 * mean.abs() + 1e-30
        scale = torch.where(flat, 1.0, scale)
        missing = ~torch.isfinite(x)
        z = (x.masked_fill(missing, 0.0) - mean[:, None]) / scale[:, None]
        z = torch.where(flat[:, None], z.clamp(-1.0, 1.0), z)
        most = _STANDARD_DEVIATIONS
        z = torch.where(z.abs() > most, z.sign() * (most + torch.log1p(z.abs() - most)), z)
        cells = x.masked_fill(missing, 0.0).transpose(1, 2).contiguous()  # [T, F, N]
        low = torch.searchsorted(sorted_support, cells)
        high = torch.searchsorted(sorted_support, cells, right=True)
        place = (low + high).to(x.dtype).transpose(1, 2) / count[:, None] - 1.0
        features = torch.stack([z, 1.7 * place, torch.zeros_like(z)], 3)
        return torch.where(missing[..., None], features.new_tensor([0.0, 0.0, 1.0]), features)

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def _tokens(self, cells: Tensor, slots: Tensor) -> Tensor:
        """Return the tokens of rows ``[T, N, K, W]``."""
        more = -cells.shape[2] % self.group
        if more:
            gone = cells.new_tensor([0.0, 0.0, 1.0]).expand(*cells.shape[:2], more, _FEATURES)
            cells = torch.cat([cells, gone], 2)
        grouped = cells.unflatten(2, (-1, self.group)).flatten(3)
        embedded = self.embed(grouped)
        return torch.cat([self.label(slots)[:, :, None].to(embedded.dtype), embedded], 2)

    def _masks(self, there: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return which tokens and which rows of the context are there; ``None`` = all."""
        columns = F.pad(there, (0, -there.shape[1] % self.group))
        tokens = F.pad(columns.unflatten(1, (-1, self.group)).any(2), (1, 0), value=True)
        rows = F.pad(mask, (self.thinking, 0), value=True)
        return (None if bool(tokens.all()) else tokens), (None if bool(rows.all()) else rows)


def _wide(part: Tensor, columns: int, group: int) -> Tensor:
    """Return keys of one token padded to those of all tokens."""
    tokens = 1 + -(-columns // group)
    return F.pad(part, (0, 0, 0, 0, 0, 0, 0, tokens - part.shape[1]))
